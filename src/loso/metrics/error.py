"""Distances between predictions and targets, in the target's unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from loso.metrics.correlation import finite_pair

__all__ = ["rmse"]


def rmse(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return the root of the mean squared error (0 is best), in the unit of the target.

    >>> rmse([1.0, 2.0], [1.0, 4.0])
    1.4142135623730951
    """
    true, pred = finite_pair(y_true, y_pred)
    if not len(true):
        raise ValueError("y_true and y_pred must not be empty")
    return float(np.sqrt(np.mean(np.square(pred - true))))
