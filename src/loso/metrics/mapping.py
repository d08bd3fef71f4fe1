"""A rising cubic from predictions to scores: what a model may be forgiven before it is judged.

Panels use a scale in their own way, so ITU-T P.1401 (01/2020), clause 7.3, lets a monotonic
third-order polynomial bring predictions onto the scale of a test before errors are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike, NDArray

from loso.metrics.correlation import finite_pair, is_constant

__all__ = ["CubicMapping", "map_in_sample", "map_out_of_fold"]

_Vector = NDArray[np.float64]


@dataclass(frozen=True)
class CubicMapping:
    """A cubic that never falls: c0 + c1 t + c2 t^2 + c3 t^3, t from -1 at `low` to 1 at `high`.

    `low` and `high` span the predictions it was fitted on. `reason` says why it is a line or a
    constant where it had to be.
    """

    coefficients: tuple[float, float, float, float]
    low: float
    high: float
    reason: str | None = None

    @classmethod
    def fit(cls, y_pred: ArrayLike, y_true: ArrayLike) -> CubicMapping:
        """Return the cubic of least squares from y_pred to y_true among those that never fall.

        ITU-T P.1401 (01/2020), clause 7.3. The derivative is held at or above 0 from the least to
        the largest prediction. Fewer than four distinct predictions give a line with a slope of at
        least 0, predictions without variation the mean score. Scale and shift of y_pred do not
        matter. ValueError for no points.

        >>> CubicMapping.fit([0, 1, 2, 3], [1, 2, 3, 4]).apply([1.5, 4.0])
        array([2.5, 5. ])
        >>> CubicMapping.fit([1, 2, 3, 4], [4, 3, 2, 1])
        CubicMapping(coefficients=(2.5, 0.0, 0.0, 0.0), low=1.0, high=4.0, reason='y_true does not \
rise with y_pred')
        """
        true, pred = finite_pair(y_true, y_pred)
        if not len(true):
            raise ValueError("y_true and y_pred must not be empty")
        low, high, mean = float(pred.min()), float(pred.max()), float(true.mean())
        if is_constant(pred):
            return cls((mean, 0.0, 0.0, 0.0), low, high, "y_pred is constant")
        powers = np.vander(_place(pred, low, high), 4, increasing=True)[:, 1:]
        centre = powers.mean(axis=0)
        q, r = np.linalg.qr(powers - centre)
        goal = q.T @ (true - mean)
        distinct = len(np.unique(pred))
        reason = None
        if distinct < 4:
            reason = f"{distinct} distinct predictions, four are needed"
            rise = np.array([max(0.0, goal[0] / r[0, 0]), 0.0, 0.0])
        else:
            rise = _rising(r, goal)
        if not rise.any():
            reason = "y_true does not rise with y_pred"
        c1, c2, c3 = rise.tolist()
        return cls((float(mean - centre @ rise), c1, c2, c3), low, high, reason)

    def apply(self, y_pred: ArrayLike) -> _Vector:
        """Return the mapped predictions; ValueError unless finite.

        Beyond `low` and `high` it goes on in a straight line with the slope it has there: a cubic
        that rises between them may turn right after.
        """
        pred = np.asarray(y_pred, dtype=np.float64)
        if not np.isfinite(pred).all():
            raise ValueError("y_pred must be finite")
        place = _place(pred, self.low, self.high)
        inside = np.clip(place, -1.0, 1.0)
        _, c1, c2, c3 = self.coefficients
        # Rounding may leave a slope of 0 a little below.
        end_slope = np.maximum(c1 + 2.0 * c2 * inside + 3.0 * c3, 0.0)
        mapped = polynomial.polyval(inside, self.coefficients) + end_slope * (place - inside)
        return np.asarray(mapped, dtype=np.float64)


def map_out_of_fold(y_true: ArrayLike, y_pred: ArrayLike, source: ArrayLike) -> _Vector:
    """Return each prediction mapped by a cubic fitted on the rows of all other sources.

    `y_pred` are out-of-fold predictions. A source's own scores have no part in its mapping, so an
    error after it is one that a clip nobody has rated would have. ValueError under two sources.

    >>> map_out_of_fold([1, 2, 3, 5], [10, 30, 10, 30], list("aabb")).round(3)
    array([3., 5., 1., 2.])
    """
    true, pred = finite_pair(y_true, y_pred)
    of_row = np.asarray(source)
    if of_row.shape != true.shape:
        raise ValueError(f"source must be as long as y_true, got {of_row.shape} and {true.shape}")
    names = np.unique(of_row)
    if len(names) < 2:
        raise ValueError(f"a mapping without the held-out source needs two, got {len(names)}")
    mapped = np.empty_like(pred)
    for name in names:
        held_out = of_row == name
        mapping = CubicMapping.fit(pred[~held_out], true[~held_out])
        mapped[held_out] = mapping.apply(pred[held_out])
    return mapped


def map_in_sample(y_true: ArrayLike, y_pred: ArrayLike) -> _Vector:
    """Return each prediction mapped by one cubic fitted on all rows: what papers report.

    It has seen the scores that it is judged on, so it flatters.

    >>> map_in_sample([1, 2, 3, 4], [10, 20, 30, 40])
    array([1., 2., 3., 4.])
    """
    return CubicMapping.fit(y_pred, y_true).apply(y_pred)


def _place(pred: _Vector, low: float, high: float) -> _Vector:
    """Return predictions as -1 at `low` to 1 at `high`: the fit knows no other scale."""
    half = (high / 2 - low / 2) or 1.0
    return (pred - (low / 2 + high / 2)) / half


def _rising(r: _Vector, goal: _Vector) -> _Vector:
    """Return (c1, c2, c3) of least |r c - goal| whose derivative is nowhere below 0 on -1..1.

    The derivative is a quadratic. Those that are nowhere negative on -1..1 form a convex cone, and
    one on its rim has a root there: at an end, where it is a mix of 1 - t^2 and (1 + t)^2 or
    (1 - t)^2 with weights of at least 0, or double and inside, where it is a multiple of (t - s)^2
    (Lukacs; Szego 1939, Orthogonal polynomials, 1.21). If the free optimum is not in the cone, the
    best is on the rim, and each piece of the rim is a least-squares problem of its own.
    """
    from scipy.optimize import nnls

    free = np.asarray(np.linalg.lstsq(r, goal, rcond=None)[0], dtype=np.float64)
    if _least_slope(free) >= 0.0:
        return free
    # Each ray is the integral of its derivative, as (c1, c2, c3).
    bow, left, right = (1.0, 0.0, -1 / 3), (1.0, 1.0, 1 / 3), (1.0, -1.0, 1 / 3)
    pieces = [np.array([bow, left]), np.array([bow, right])]
    pieces += [np.array([(s * s, -s, 1 / 3)]) for s in _double_roots(r, goal)]
    best, least = np.zeros(3), np.inf
    for rays in pieces:
        weight, distance = nnls(r @ rays.T, goal)
        if distance < least:
            best, least = weight @ rays, distance
    return best


def _least_slope(rise: _Vector) -> float:
    c1, c2, c3 = rise
    turn = -c2 / (3.0 * c3) if abs(c2) < 3.0 * c3 else 1.0
    return float(min(c1 + 2.0 * c2 * t + 3.0 * c3 * t * t for t in (-1.0, turn, 1.0)))


def _double_roots(r: _Vector, goal: _Vector) -> _Vector:
    """Return every s in -1..1 at which the best multiple of (t - s)^2 may fit best.

    With p(s) = r (s^2, -s, 1/3), that multiple leaves |goal|^2 - (p . goal)^2 / (p . p), which is
    stationary where 2 (p . goal)' (p . p) = (p . goal) (p . p)'. The fifth powers of s cancel. A
    value that is no solution does no harm: it is one more cubic that rises.
    """
    p = [np.array([row[2] / 3.0, -row[1], row[0]]) for row in r]
    fit = np.sum([share * own for share, own in zip(goal, p, strict=True)], axis=0)
    norm = np.sum([np.convolve(own, own) for own in p], axis=0)
    stationary = 2.0 * np.convolve(polynomial.polyder(fit), norm)
    stationary -= np.convolve(fit, polynomial.polyder(norm))
    return np.clip(np.roots(stationary[4::-1]).real, -1.0, 1.0)
