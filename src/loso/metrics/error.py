"""Distances between predictions and targets, in the target's unit, and those votes can explain."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loso.metrics.correlation import finite_pair

__all__ = ["ci95_of_votes", "outlier_ratio", "rmse", "rmse_star"]

_Z95: Final = 1.96
"""Two-sided 95 % point of the normal distribution, as ITU-T P.1401 rounds it."""


def rmse(y_true: ArrayLike, y_pred: ArrayLike, *, degrees_of_freedom: int = 0) -> float:
    """Return the root of the mean squared error (0 is best), in the unit of the target.

    The divisor is N - degrees_of_freedom. ITU-T P.1401 (01/2020), clause 7.5.1, takes off what a
    mapping fitted on the same points has used up, and papers take 4 off after a cubic; ValueError
    unless N is larger. 0 is right wherever nothing was fitted on the points that are judged.

    >>> rmse([1.0, 2.0], [1.0, 4.0])
    1.4142135623730951
    """
    true, pred = finite_pair(y_true, y_pred)
    return _root_mean_square(pred - true, degrees_of_freedom)


def ci95_of_votes(mos_std: ArrayLike, n_votes: ArrayLike) -> NDArray[np.float64]:
    """Return half the width of each mean opinion score's 95 % interval: 1.96 * std / sqrt(votes).

    `mos_std` is the standard deviation of a clip's votes with ddof=1, `n_votes` their number, at
    least 1 (one for all clips will do). ITU-T P.1401 (01/2020), clause 7.4, the normal case: with
    fewer than about 30 votes Student's t is wider.

    >>> ci95_of_votes([0.5, 1.0], 25)
    array([0.196, 0.392])
    """
    std = np.asarray(mos_std, dtype=np.float64)
    votes = np.asarray(n_votes, dtype=np.float64)
    if not (np.isfinite(std).all() and (std >= 0).all()):
        raise ValueError("mos_std must be finite and not negative")
    if not (np.isfinite(votes).all() and (votes >= 1).all()):
        raise ValueError("n_votes must be finite and at least 1")
    half_width: NDArray[np.float64] = _Z95 * std / np.sqrt(votes)
    return half_width


def outlier_ratio(y_true: ArrayLike, y_pred: ArrayLike, *, ci95: ArrayLike) -> float:
    """Return the share of points whose |error| exceeds their score's 95 % half-width (0 is best).

    `ci95` is one half-width for all points or one for each, from `ci95_of_votes` or the test's own
    report. ITU-T P.1401 (01/2020), clause 7.5.2.2.

    >>> outlier_ratio([1.0, 2.0, 3.0, 4.0], [1.1, 2.1, 3.1, 4.9], ci95=0.2)
    0.25
    """
    error, half_width = _errors_and_half_widths(y_true, y_pred, ci95)
    if not len(error):
        raise ValueError("y_true and y_pred must not be empty")
    return float(np.mean(np.abs(error) > half_width))


def rmse_star(
    y_true: ArrayLike, y_pred: ArrayLike, *, ci95: ArrayLike, degrees_of_freedom: int = 0
) -> float:
    """Return the RMSE of what |error| exceeds its score's 95 % half-width by (0 is best).

    The epsilon-insensitive rmse* of ITU-T P.1401 (01/2020), clause 7.7: the root of
    sum(max(0, |error| - ci95)^2) / (N - degrees_of_freedom). `ci95` as in `outlier_ratio`,
    `degrees_of_freedom` as in `rmse`.

    >>> rmse_star([1.0, 2.0], [1.5, 2.25], ci95=0.25)
    0.1767766952966369
    """
    error, half_width = _errors_and_half_widths(y_true, y_pred, ci95)
    return _root_mean_square(np.maximum(0.0, np.abs(error) - half_width), degrees_of_freedom)


def _root_mean_square(error: NDArray[np.float64], degrees_of_freedom: int) -> float:
    if not len(error):
        raise ValueError("y_true and y_pred must not be empty")
    if not 0 <= degrees_of_freedom < len(error):
        raise ValueError(
            f"degrees_of_freedom must lie in 0..{len(error) - 1} for {len(error)} points, "
            f"got {degrees_of_freedom}"
        )
    return float(np.sqrt(np.square(error).sum() / (len(error) - degrees_of_freedom)))


def _errors_and_half_widths(
    y_true: ArrayLike, y_pred: ArrayLike, ci95: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    true, pred = finite_pair(y_true, y_pred)
    half_width = np.asarray(ci95, dtype=np.float64)
    if half_width.shape not in {(), true.shape}:
        raise ValueError(
            f"ci95 must be one number or one for each point, got {half_width.shape} "
            f"for {true.shape}"
        )
    if not (np.isfinite(half_width).all() and (half_width >= 0).all()):
        raise ValueError("ci95 must be finite and not negative")
    return pred - true, half_width
