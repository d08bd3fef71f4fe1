"""Ridge regression with every source held out once: the linear baseline, in closed form.

Counts, means and scatters of each source say all that a fit needs, so a fold without one or two of
them is a sum over the others, and the rows are read twice, whatever the number of folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["PENALTIES", "Ridge", "ridge_out_of_fold"]

PENALTIES: Final = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Penalties on a squared coefficient for each training row, strongest first: of equals it wins."""

_UNCHOSEN: Final = 1e-2
"""Where two sources leave one to train on, and none of it to choose with."""

_LEAST_STD: Final = 1e-8

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ridge:
    """Out-of-fold predictions (rows,), and the penalty a row of each source's fold, ascending."""

    y_pred: _Array
    penalty: tuple[float, ...]


@dataclass(frozen=True)
class _Moments:
    """Of each source: rows (K,), mean (K, d) and scatter about it (K, d, d), target last."""

    count: _Array
    mean: _Array
    scatter: _Array

    def of(self, sources: NDArray[np.intp]) -> tuple[float, _Array, _Array]:
        """Return count, mean and scatter of some sources' rows together.

        Chan, Golub and LeVeque 1983, The American Statistician 37. Taking sources off the moments
        of all rows would be quicker, but would leave the digits of those held out behind.
        """
        count, mean = self.count[sources], self.mean[sources]
        total = float(count.sum())
        centre = count @ mean / total
        apart = mean - centre
        return total, centre, self.scatter[sources].sum(axis=0) + (apart.T * count) @ apart

    def squared_errors(self, source: int, centre: _Array, weights: _Array) -> _Array:
        """Return the sum of squared errors on a source of each of `weights` (penalties, d)."""
        offset = weights @ (self.mean[source] - centre)
        spread = np.einsum("pi,ij,pj->p", weights, self.scatter[source], weights)
        squares: _Array = spread + self.count[source] * offset**2
        return squares


def ridge_out_of_fold(inputs: ArrayLike, y_true: ArrayLike, source: ArrayLike) -> Ridge:
    """Return each row's prediction by a ridge regression on the rows of all other sources.

    `inputs` (rows, inputs) are standardised and `y_true` (rows,) is centred on training rows;
    inputs that do not vary there are left out. The loss is sum((y - X b)^2) + rows * penalty * b'b
    (Hoerl and Kennard 1970). Of `PENALTIES` a fold takes the one with the least squared error when
    each of its training sources is held out in turn. ValueError under two sources.

    >>> x = np.arange(6.0)
    >>> ridge_out_of_fold(x[:, None], 2 * x, list("aabbcc")).y_pred.round(2)
    array([ 0.,  2.,  4.,  6.,  8., 10.])
    """
    matrix = np.asarray(inputs, dtype=np.float64)
    target = np.asarray(y_true, dtype=np.float64)
    names, code = np.unique(np.asarray(source), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"ridge without the held-out source needs two, got {len(names)}")
    rows_of = [np.flatnonzero(code == own) for own in range(len(names))]
    moments = _moments_of(matrix, target, rows_of)
    everyone = np.arange(len(names))
    chosen = np.full(len(names), PENALTIES.index(_UNCHOSEN))
    if len(names) > 2:
        errors = np.zeros((len(names), len(PENALTIES)))
        for one, two in combinations(range(len(names)), 2):
            _, centre, weights = _fit(moments, np.setdiff1d(everyone, (one, two)))
            errors[one] += moments.squared_errors(two, centre, weights)
            errors[two] += moments.squared_errors(one, centre, weights)
        chosen = errors.argmin(axis=1)
    y_pred = np.empty(len(target))
    for own, rows in enumerate(rows_of):
        coefficients, centre, _ = _fit(moments, np.delete(everyone, own))
        y_pred[rows] = centre[-1] + (matrix[rows] - centre[:-1]) @ coefficients[chosen[own]]
    return Ridge(y_pred, tuple(PENALTIES[index] for index in chosen))


def _moments_of(matrix: _Array, target: _Array, rows_of: list[NDArray[np.intp]]) -> _Moments:
    means, scatters = [], []
    for rows in rows_of:
        joint = np.column_stack([matrix[rows], target[rows]])
        mean = joint.mean(axis=0)
        joint -= mean
        means.append(mean)
        scatters.append(joint.T @ joint)
    count = np.array([len(rows) for rows in rows_of], dtype=np.float64)
    return _Moments(count, np.stack(means), np.stack(scatters))


def _fit(moments: _Moments, train: NDArray[np.intp]) -> tuple[_Array, _Array, _Array]:
    """Return coefficients (penalties, inputs) of raw inputs, the mean (d,) about which they hold.

    The third are weights (penalties, d) that give the error of a row as its deviation from that
    mean, target last.
    """
    count, centre, scatter = moments.of(train)
    std = np.sqrt(np.diag(scatter)[:-1] / count)
    varies = std >= _LEAST_STD
    std = np.where(varies, std, 1.0)
    gram = np.where(np.outer(varies, varies), scatter[:-1, :-1] / np.outer(std, std), 0.0)
    goal = np.where(varies, scatter[:-1, -1] / std, 0.0)
    values, vectors = np.linalg.eigh(gram)
    damped = (vectors.T @ goal) / (np.maximum(values, 0.0) + count * np.array([PENALTIES]).T)
    coefficients = damped @ vectors.T / std
    return coefficients, centre, np.column_stack([-coefficients, np.ones(len(PENALTIES))])
