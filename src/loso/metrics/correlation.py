"""Linear and rank correlation, with the undefined case as a named outcome."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Correlation", "defined_mean", "finite_pair", "is_constant", "krocc", "plcc", "srocc"]

_ROUNDING = 1e-13
"""Deviations below this share of the mean are rounding noise (scipy.stats.pearsonr warns there)."""


@dataclass(frozen=True)
class Correlation:
    """A correlation in -1..1 (1 is best), or None with the reason why there is none."""

    value: float | None
    reason: str | None = None


def finite_pair(
    y_true: ArrayLike, y_pred: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both as float64 vectors; ValueError unless of one length and finite throughout."""
    true = np.asarray(y_true, dtype=np.float64)
    pred = np.asarray(y_pred, dtype=np.float64)
    if true.ndim != 1 or true.shape != pred.shape:
        raise ValueError(
            f"y_true and y_pred must be vectors of one length, got {true.shape} and {pred.shape}"
        )
    if not (np.isfinite(true).all() and np.isfinite(pred).all()):
        raise ValueError("y_true and y_pred must be finite")
    return true, pred


def is_constant(values: NDArray[np.float64]) -> bool:
    """Tell whether values, at least one, differ by no more than rounding noise.

    >>> is_constant(np.array([0.1 + 0.2, 0.3]))
    True
    """
    mean = values.mean()
    return bool(np.ptp(values) == 0 or np.abs(values - mean).max() <= _ROUNDING * abs(mean))


def plcc(y_true: ArrayLike, y_pred: ArrayLike) -> Correlation:
    """Return Pearson's linear correlation of two equally long vectors.

    It is the cosine of the centred vectors. Undefined for fewer than two values and for a vector
    without variation.

    >>> round(plcc([1, 2, 3], [2, 4, 6]).value, 12)
    1.0
    >>> plcc([1, 2, 3], [5, 5, 5])
    Correlation(value=None, reason='y_pred is constant')
    """
    true, pred = finite_pair(y_true, y_pred)
    if len(true) < 2:
        return Correlation(None, f"{len(true)} value{'s' * (len(true) != 1)}, two are needed")
    centred = []
    for name, values in (("y_true", true), ("y_pred", pred)):
        if is_constant(values):
            return Correlation(None, f"{name} is constant")
        deviation = values - values.mean()
        # Scaled by the largest deviation first: squares of tiny or huge ones leave the doubles.
        deviation /= np.abs(deviation).max()
        centred.append(deviation / np.linalg.norm(deviation))
    return Correlation(float(np.clip(centred[0] @ centred[1], -1.0, 1.0)))


def srocc(y_true: ArrayLike, y_pred: ArrayLike) -> Correlation:
    """Return Spearman's rank correlation: Pearson's over ranks, ties sharing their mean rank.

    >>> srocc([1, 2, 3, 4], [1, 10, 100, 1000]).value
    1.0
    """
    true, pred = finite_pair(y_true, y_pred)
    return plcc(_mean_ranks(true), _mean_ranks(pred))


def krocc(y_true: ArrayLike, y_pred: ArrayLike) -> Correlation:
    """Return Kendall's rank correlation tau-b, which corrects for ties in either vector.

    (concordant - discordant pairs) / sqrt(pairs untied in y_true * pairs untied in y_pred); Kendall
    1945, Biometrika 33. Undefined where plcc is, except that any two different values vary.

    >>> krocc([1, 2, 3], [10, 30, 20])
    Correlation(value=0.33333333333333337, reason=None)
    """
    true, pred = finite_pair(y_true, y_pred)
    if len(true) < 2:
        return plcc(true, pred)
    for name, values in (("y_true", true), ("y_pred", pred)):
        if values.min() == values.max():
            return Correlation(None, f"{name} is constant")
    from scipy.stats import kendalltau

    return Correlation(float(np.clip(kendalltau(true, pred).statistic, -1.0, 1.0)))


def defined_mean(scores: Iterable[float | None]) -> float | None:
    """Return the mean; None where a score is: leaving that one out would flatter the rest.

    >>> defined_mean([0.5, 1.0]), defined_mean([0.5, None]), defined_mean([])
    (0.75, None, None)
    """
    found = list(scores)
    known = [score for score in found if score is not None]
    return fmean(known) if known and len(known) == len(found) else None


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last_rank - (counts - 1) / 2)[inverse]
    return ranks
