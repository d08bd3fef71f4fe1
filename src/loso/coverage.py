"""Measured coverage: intervals on a source that neither model nor calibration saw, by refits.

For each judged source the model without it is judged, and calibrated with every other source under
the model that saw neither of the two. Leave-one-out over fixed scores would prove nothing: its
coverage is at or above nominal by algebra.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loso.errors import BadSettings
from loso.intervals import (
    LevelCoverage,
    MeasuredCoverage,
    Points,
    PoolCoverage,
    SourceCoverage,
    fit_rule,
    level_key,
    pools_of,
    supports,
)
from loso.metrics.pooling import pool_scores

__all__ = [
    "DEFAULT_PAIRS",
    "LeavingOut",
    "Questions",
    "choose_judged",
    "measure_coverage",
    "pairs_of",
]

DEFAULT_PAIRS: Final = 66
"""All pairs of twelve sources: with the standard recipe about two minutes on two cores."""

_DRAW_SEED: Final = 0
"""Of which sources are judged where not all are, and of the halves of permuted rows."""

LeavingOut = Callable[[Sequence[tuple[int, int]]], Iterable[NDArray[np.float64]]]
"""For each pair of sources the predictions (seeds, rows) of their rows, ascending, by models that
saw neither."""


@dataclass(frozen=True)
class Questions:
    """What is predicted: target, source and clip of each row, all (rows,), and sources' names.

    `source` counts in `names`; `clip` is any number that a clip's rows share. With clips as the
    unit a row is a clip, and there is one pool.
    """

    y_true: NDArray[np.float64]
    source: NDArray[np.int64]
    clip: NDArray[np.int64]
    names: tuple[str, ...]
    unit: str = "frame"

    def points(
        self, rows: NDArray[np.int64], predictions: NDArray[np.float64]
    ) -> dict[str, Points]:
        """Return the points of each pool from predictions (seeds, len(rows)) of some rows.

        mu is the mean over seeds, sigma their standard deviation with ddof=1. For a clip's pool,
        mu is the pool of the mean's frames, sigma that of each seed's own pool.
        """
        mu, y_true = predictions.mean(axis=0), self.y_true[rows]
        of_rows = Points(np.abs(y_true - mu), predictions.std(axis=0, ddof=1))
        row_pool, *clip_pools = pools_of(self.unit)
        if not clip_pools:
            return {row_pool: of_rows}
        pooled = pool_scores(np.vstack([y_true, mu, predictions]), self.clip[rows])
        return {
            row_pool: of_rows,
            **{
                name: Points(np.abs(of[0] - of[1]), of[2:].std(axis=0, ddof=1))
                for name, of in pooled.items()
            },
        }


def choose_judged(n_sources: int, pairs: int | None = None) -> tuple[int, ...]:
    """Return the sources to judge, ascending: all, or as many as that number of pairs allows.

    A source is judged with all its partners, and sources that are both judged share a pair. Which
    ones is drawn with a fixed seed. By default `pairs` is 66, or what one source needs where that
    is more. BadSettings where not even one source can be judged.

    >>> choose_judged(4)
    (0, 1, 2, 3)
    """
    partners = n_sources - 1
    allowed = max(DEFAULT_PAIRS, partners) if pairs is None else pairs
    if allowed < partners:
        raise BadSettings(
            "too few pairs to judge a single source",
            expected=f"at least {partners}: each source has that many partners",
            found=str(pairs),
            fix=f"give --pairs {partners} or more",
        )
    count = max(n for n in range(1, n_sources + 1) if n * partners - n * (n - 1) // 2 <= allowed)
    drawn = np.random.default_rng(_DRAW_SEED).permutation(n_sources)[:count]
    return tuple(sorted(drawn.tolist()))


def pairs_of(judged: Iterable[int], n_sources: int) -> list[tuple[int, int]]:
    """Return every pair of a judged source and another, the smaller first, each once, ascending.

    >>> pairs_of([0, 2], 3)
    [(0, 1), (0, 2), (1, 2)]
    """
    others = range(n_sources)
    return sorted({(min(s, k), max(s, k)) for s in judged for k in others if k != s})


def measure_coverage(
    questions: Questions,
    out_of_fold: NDArray[np.float64],
    leaving_out: LeavingOut,
    levels: Sequence[float],
    judged: Sequence[int],
) -> MeasuredCoverage:
    """Return the coverage of intervals on each judged source, made without it from end to end.

    `out_of_fold` (seeds, rows) predicts every row without its source. Form, s0 and quantiles that
    a source meets come from the other sources' points under models that had not seen it either.
    Beside it stand mu +- z sigma, and split conformal that takes rows as exchangeable.
    """
    n_sources = len(questions.names)
    pairs = pairs_of(judged, n_sources)
    calibration: dict[int, dict[int, dict[str, Points]]] = {s: {} for s in judged}
    for pair, predictions in zip(pairs, leaving_out(pairs), strict=True):
        rows = np.flatnonzero(np.isin(questions.source, pair))
        for other, own in (pair, pair[::-1]):
            if own in calibration:
                of_other = questions.source[rows] == other
                found = questions.points(rows[of_other], predictions[:, of_other])
                calibration[own][other] = found
    met = {}
    for own in judged:
        rows = np.flatnonzero(questions.source == own)
        met[questions.names[own]] = (
            questions.points(rows, out_of_fold[:, rows]),
            [calibration[own][other] for other in sorted(calibration[own])],
        )
    return MeasuredCoverage(
        judged_sources=tuple(met),
        n_pairs=len(pairs),
        n_pairs_possible=n_sources * (n_sources - 1) // 2,
        capped=len(judged) < n_sources,
        by_pool={
            pool: _judge_pool(
                {
                    name: (own[pool], [other[pool] for other in others])
                    for name, (own, others) in met.items()
                },
                levels,
            )
            for pool in pools_of(questions.unit)
        },
    )


def _judge_pool(
    met: Mapping[str, tuple[Points, list[Points]]], levels: Sequence[float]
) -> PoolCoverage:
    """Return the coverage of one pool; `met` holds each source's points and its calibration's."""
    partners = len(next(iter(met.values()))[1])
    supported = [level for level in levels if supports(partners, level)]
    rules = {name: fit_rule(others, supported) for name, (_, others) in met.items()}
    hierarchical, gaussian, split = {}, {}, {}
    left_out: dict[str, dict[str, str]] = {}
    for level in levels:
        key = level_key(level)
        z = NormalDist().inv_cdf((1.0 + level) / 2.0)
        gaussian[key] = _cover({name: (own, z * own.sigma) for name, (own, _) in met.items()})
        if level in supported:
            hierarchical[key] = _cover(
                {
                    name: (own, rules[name].half_width(own.sigma, level))
                    for name, (own, _) in met.items()
                }
            )
        else:
            left_out.setdefault("hierarchical", {})[key] = (
                f"{partners} sources are left to calibrate a judged one, and do not support it"
            )
        halves = {name: _split_quantile(others, level) for name, (_, others) in met.items()}
        if math.isfinite(max(halves.values())):
            split[key] = _cover(
                {
                    name: (own, np.full_like(own.error, halves[name]))
                    for name, (own, _) in met.items()
                }
            )
        else:
            left_out.setdefault("permuted_split", {})[key] = "too few points for that level"
    return PoolCoverage(
        hierarchical=hierarchical,
        gaussian=gaussian,
        permuted_split=split,
        left_out=left_out,
        rules=rules,
    )


def _split_quantile(others: Sequence[Points], level: float) -> float:
    """Return the half width of ordinary split conformal on a random half of the pooled rows."""
    errors = np.concatenate([points.error for points in others])
    drawn = np.random.default_rng(_DRAW_SEED).permutation(errors)[: len(errors) // 2]
    rank = math.ceil((len(drawn) + 1) * level - 1e-9)
    return float(np.sort(drawn)[rank - 1]) if 0 < rank <= len(drawn) else math.inf


def _cover(met: Mapping[str, tuple[Points, NDArray[np.float64]]]) -> LevelCoverage:
    by_source = {
        name: SourceCoverage(
            coverage=float(np.mean(points.error <= half)), width=float(2.0 * np.mean(half))
        )
        for name, (points, half) in met.items()
    }
    worst = min(by_source, key=lambda name: by_source[name].coverage)
    return LevelCoverage(
        mean=fmean(own.coverage for own in by_source.values()),
        worst=by_source[worst].coverage,
        worst_source=worst,
        mean_width=fmean(own.width for own in by_source.values()),
        by_source=by_source,
    )
