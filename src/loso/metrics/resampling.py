"""How sure a figure is, with the source as the unit: two intervals side by side.

Rows of one source resemble each other, so whole sources are drawn again or left out. The cluster
bootstrap is the one that papers use; with few sources it is too narrow, and the jackknife beside it
shows by how much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loso.metrics.correlation import finite_pair

__all__ = [
    "BySource",
    "Resampled",
    "beats",
    "bootstrap",
    "jackknife",
    "plcc_by_source",
    "rmse_by_source",
    "rmse_gain_by_source",
    "rows_by_source",
]

_NO_VARIATION: Final = 1e-12
"""A variance below this share of the mean square is the rounding of a constant."""


@dataclass(frozen=True)
class Resampled:
    """A figure and its interval at `level`, or None with the reason why there is none."""

    value: float | None
    low: float | None
    high: float | None
    level: float
    method: Literal["bootstrap", "jackknife"]
    n_sources: int
    reason: str | None = None


@dataclass(frozen=True)
class BySource:
    """A figure of rows, in a form that can be computed again for other sources.

    `at` takes how often each source counts, whole numbers (resamples, sources), and gives
    (resamples,) figures, NaN where there is none. No interval leaves `bounds`.
    """

    n_sources: int
    at: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    bounds: tuple[float, float] = (-math.inf, math.inf)


def rmse_by_source(y_true: ArrayLike, y_pred: ArrayLike, source: ArrayLike) -> BySource:
    """Return the RMSE over all rows (divisor N) by source.

    >>> rmse_by_source([1.0, 2.0], [1.0, 4.0], ["a", "b"]).at(np.ones((1, 2)))
    array([1.41421356])
    """
    true, pred = finite_pair(y_true, y_pred)
    code, n_sources = _codes(source, len(true))
    sums = _sums_by_source(code, n_sources, np.square(pred - true))

    def at(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        n, squares = (counts @ sums).T
        root: NDArray[np.float64] = np.sqrt(squares / n)
        return root

    return BySource(n_sources, at, (0.0, math.inf))


def rmse_gain_by_source(
    y_true: ArrayLike, y_pred: ArrayLike, y_baseline: ArrayLike, source: ArrayLike
) -> BySource:
    """Return the RMSE of a baseline less that of the model, by source: above 0 the model is better.

    Paired: both are computed on the same sources in each resample.

    >>> rmse_gain_by_source([1.0, 2.0], [1.0, 2.0], [2.0, 3.0], ["a", "b"]).at(np.ones((1, 2)))
    array([1.])
    """
    model = rmse_by_source(y_true, y_pred, source)
    baseline = rmse_by_source(y_true, y_baseline, source)
    return BySource(model.n_sources, lambda counts: baseline.at(counts) - model.at(counts))


def plcc_by_source(y_true: ArrayLike, y_pred: ArrayLike, source: ArrayLike) -> BySource:
    """Return Pearson's correlation over all rows by source, from sums of moments.

    >>> plcc_by_source([1, 2, 3], [2, 4, 6], ["a", "a", "b"]).at(np.ones((1, 2)))
    array([1.])
    """
    true, pred = finite_pair(y_true, y_pred)
    code, n_sources = _codes(source, len(true))
    # About the overall mean: the moments then differ by what varies, and not in the last digits.
    x, y = (values - values.mean() for values in (true, pred))
    x, y = (values / (np.abs(values).max() or 1.0) for values in (x, y))
    sums = _sums_by_source(code, n_sources, x, y, x * x, y * y, x * y)

    def at(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        n, sx, sy, sxx, syy, sxy = (counts @ sums).T
        vx, vy = sxx - sx * sx / n, syy - sy * sy / n
        defined = (vx > _NO_VARIATION * sxx) & (vy > _NO_VARIATION * syy)
        spread = np.sqrt(np.where(defined, vx, 1.0)) * np.sqrt(np.where(defined, vy, 1.0))
        return np.where(defined, np.clip((sxy - sx * sy / n) / spread, -1.0, 1.0), np.nan)

    return BySource(n_sources, at, (-1.0, 1.0))


def rows_by_source(
    source: ArrayLike,
    figure: Callable[[NDArray[np.intp]], float | None],
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> BySource:
    """Return any figure of rows by source; it is called with row numbers once for each resample.

    `figure` gives None where it is undefined. A row occurs as often as its source counts.

    >>> y = np.array([1.0, 2.0, 6.0])
    >>> rows_by_source(["a", "a", "b"], lambda rows: y[rows].mean()).at(np.array([[1, 0], [1, 2]]))
    array([1.5 , 3.75])
    """
    code, n_sources = _codes(source, len(np.asarray(source)))
    rows_of = [np.flatnonzero(code == own) for own in range(n_sources)]

    def at(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        figures = []
        for times in counts.astype(np.intp):
            rows = np.concatenate([np.tile(rows_of[own], times[own]) for own in range(n_sources)])
            value = figure(rows)
            figures.append(math.nan if value is None else float(value))
        return np.array(figures)

    return BySource(n_sources, at, bounds)


def bootstrap(
    figure: BySource, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Resampled:
    """Return the percentile interval over resamples of as many sources, drawn with replacement.

    Efron and Tibshirani 1993, An introduction to the bootstrap, chapter 13; for clusters, Davison
    and Hinkley 1997, section 3.8. The same seed and number of sources give the same resamples,
    whatever the figure. With nine sources it covers less than it says: see docs/statistics.md.

    >>> y = np.arange(6.0)
    >>> bootstrap(rmse_by_source(y, y + 1, [0, 0, 1, 1, 2, 2])).low
    1.0
    """
    _require_level(level)
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, got {n_resamples}")
    count = figure.n_sources
    drawn = np.random.default_rng(seed).integers(0, count, (n_resamples, count))
    drawn += np.arange(n_resamples)[:, None] * count
    counts = np.bincount(drawn.ravel(), minlength=n_resamples * count)
    figures = figure.at(counts.reshape(n_resamples, count).astype(np.float64))

    def ends() -> tuple[float, float]:
        low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    return _resampled(figure, figures, level, "bootstrap", ends)


def jackknife(figure: BySource, *, level: float = 0.95) -> Resampled:
    """Return the figure +- t times its jackknife standard error, one source left out at a time.

    The square of that error is (K - 1) / K * sum((figure without k - their mean)^2), Efron and
    Tibshirani 1993, equation 11.5, and t is Student's with K - 1 degrees of freedom (Tukey 1958).

    >>> y = np.arange(6.0)
    >>> jackknife(rmse_by_source(y, y + 1, [0, 0, 1, 1, 2, 2])).high
    1.0
    """
    _require_level(level)
    count = figure.n_sources
    figures = figure.at(1.0 - np.eye(count)) if count > 1 else np.array([])
    value = _figure_of_all(figure)

    def ends() -> tuple[float, float]:
        from scipy.special import stdtrit

        error = math.sqrt((count - 1) / count * float(np.square(figures - figures.mean()).sum()))
        half = float(stdtrit(count - 1, (1 + level) / 2)) * error
        return max(value - half, figure.bounds[0]), min(value + half, figure.bounds[1])

    return _resampled(figure, figures, level, "jackknife", ends)


def beats(gain: Resampled) -> bool:
    """Tell whether a paired gain lies above 0 with its whole interval; False where there is none.

    >>> beats(Resampled(0.2, 0.1, 0.3, 0.95, "jackknife", 9))
    True
    """
    return gain.low is not None and gain.low > 0.0


def _resampled(
    figure: BySource,
    figures: NDArray[np.float64],
    level: float,
    method: Literal["bootstrap", "jackknife"],
    ends: Callable[[], tuple[float, float]],
) -> Resampled:
    """Return the record; the interval's `ends` are asked for only where every figure is defined."""
    count, value = figure.n_sources, _figure_of_all(figure)
    undefined = int(np.isnan(figures).sum())
    if math.isnan(value):
        return Resampled(None, None, None, level, method, count, "undefined on all rows")
    reason = None
    if count < 2:
        reason = f"{count} source, two are needed"
    elif undefined:
        reason = f"undefined on {undefined} of {len(figures)} resamples"
    low, high = (None, None) if reason else ends()
    return Resampled(value, low, high, level, method, count, reason)


def _figure_of_all(figure: BySource) -> float:
    return float(figure.at(np.ones((1, figure.n_sources)))[0])


def _codes(source: ArrayLike, n_rows: int) -> tuple[NDArray[np.intp], int]:
    """Return each row's source as a number, sources ascending, and how many sources there are."""
    of_row = np.asarray(source)
    if of_row.shape != (n_rows,) or not n_rows:
        raise ValueError(
            f"source must hold one name for each row, got {of_row.shape} for {n_rows} rows"
        )
    names, code = np.unique(of_row, return_inverse=True)
    return code, len(names)


def _sums_by_source(
    code: NDArray[np.intp], n_sources: int, *terms: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return rows and the sum of each term as (sources, 1 + terms)."""
    columns = [np.bincount(code, minlength=n_sources)]
    columns += [np.bincount(code, weights=term, minlength=n_sources) for term in terms]
    return np.stack(columns, axis=1).astype(np.float64)


def _require_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
