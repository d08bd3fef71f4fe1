"""Distances between predictions and targets, in the target's unit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["rmse"]


def rmse(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return the root of the mean squared error (0 is best), in the unit of the target.

    >>> rmse([1.0, 2.0], [1.0, 4.0])
    1.4142135623730951
    """
    true = np.asarray(y_true, dtype=np.float64)
    pred = np.asarray(y_pred, dtype=np.float64)
    if true.ndim != 1 or true.shape != pred.shape or not len(true):
        raise ValueError(
            "y_true and y_pred must be vectors of one length, not empty, "
            f"got {true.shape} and {pred.shape}"
        )
    return float(np.sqrt(np.mean(np.square(pred - true))))
