"""Intervals for sources nobody has seen: hierarchical conformal prediction.

Rows of one source resemble each other, so the unit of calibration is the source. Dunn, Wasserman
and Ramdas (arXiv 1809.07441); Lee, Barber and Willett (arXiv 2306.06342).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from loso.errors import BadEvidence, BadSettings
from loso.files import write_json
from loso.metrics.pooling import CLIP_POOLS
from loso.records import OneFault, parse_record

__all__ = [
    "LEAST_SOURCES",
    "LEVELS",
    "POOLS",
    "IntervalsFile",
    "LevelCoverage",
    "MeasuredCoverage",
    "Points",
    "PoolCoverage",
    "Rule",
    "SourceCoverage",
    "choose_level",
    "fit_rule",
    "level_key",
    "parse_intervals",
    "pools_of",
    "source_quantiles",
    "supports",
    "write_intervals",
]

POOLS: Final = ("frame", *CLIP_POOLS)
"""What an interval is for: a frame's score, or a clip's scores pooled in one of four ways."""

CLIP: Final = "clip"
"""The one pool where clips are the unit: its one score is the clip's."""

LEVELS: Final = (0.5, 0.8)
"""Levels that are always calibrated, beside the default or the one asked for."""

LEAST_SOURCES: Final = 4
"""The fewest that support 80 %."""

_DEFAULT_LEVELS: Final = (0.95, 0.90, 0.80)

_GRACE: Final = 1e-12
"""So that nine sources support 0.9, although 1 - 0.9 is below 0.1 in binary floats."""

_TIE: Final = 1e-9
"""Cumulated weights closer than this are equal: it costs 1e-9 of coverage, and a sum of a million
weights rounds by less. Forms closer than this fit equally well, and the first of them is taken."""

_S0_PER_SIGMA: Final = (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Points:
    """What one source tells about one pool: |y - mu| and sigma, both (points,), in target units."""

    error: NDArray[np.float64]
    sigma: NDArray[np.float64]


class Rule(OneFault, BaseModel):
    """How wide the intervals of one pool are: a quantile for each level, times what it scales.

    `absolute` means mu +- quantile, `scaled` mu +- quantile x (sigma + s0); sigma and s0 in the
    target's unit. Keys of `quantiles` are levels as `level_key` writes them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    form: Literal["absolute", "scaled"]
    s0: Annotated[float, Field(ge=0)]
    quantiles: dict[str, Annotated[float, Field(ge=0)]]

    def half_width(self, sigma: NDArray[np.float64], level: float) -> NDArray[np.float64]:
        """Return half the width of each interval, in the target's unit; KeyError without level."""
        return self.quantiles[level_key(level)] * self.unit(sigma)

    def unit(self, sigma: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the quantile is multiplied with."""
        return np.ones_like(sigma) if self.form == "absolute" else sigma + self.s0


def pools_of(unit: str) -> tuple[str, ...]:
    """Return what intervals are for, the pool of a single row first.

    >>> pools_of("clip"), pools_of("frame")[:2]
    (('clip',), ('frame', 'mean'))
    """
    return (CLIP,) if unit == CLIP else POOLS


def level_key(level: float) -> str:
    """Return a level as files write it.

    >>> level_key(0.80)
    '0.8'
    """
    return f"{level:g}"


def supports(n_sources: int, level: float) -> bool:
    """Tell whether that many sources give a finite interval: 1 - level >= 1 / (n_sources + 1).

    >>> supports(9, 0.9), supports(9, 0.95), supports(19, 0.95)
    (True, False, True)
    """
    return 1.0 - level >= 1.0 / (n_sources + 1) - _GRACE


def choose_level(n_sources: int, asked: float | None = None) -> float:
    """Return the level asked for, or the default one for that many sources.

    The default is the highest of 0.95, 0.90 and 0.80 that leaves room for one source beyond the
    largest residual, 1 - level >= 2 / (n_sources + 1); else 0.80. BadSettings under four sources,
    and for a level that they do not support.

    >>> choose_level(9), choose_level(39)
    (0.8, 0.95)
    """
    if n_sources < LEAST_SOURCES:
        raise BadSettings(
            "too few sources for intervals",
            expected=f"at least {LEAST_SOURCES}: they are what intervals are calibrated on",
            found=str(n_sources),
            fix="add clips of other sources",
        )
    if asked is None:
        least = 2.0 / (n_sources + 1) - _GRACE
        return next((level for level in _DEFAULT_LEVELS if 1.0 - level >= least), 0.80)
    level = float(level_key(asked))  # as files name it
    if not 0.0 < level < 1.0:
        raise BadSettings("the level must lie between 0 and 1", found=f"{asked:g}")
    _require_support(n_sources, level)
    return level


def source_quantiles(
    scores: Sequence[NDArray[np.float64]], levels: Sequence[float]
) -> dict[str, float]:
    """Return the weighted quantile at each level of `scores`, one array for each of K sources.

    Each of the n values of a source weighs 1/((K+1) n), and infinity weighs 1/(K+1); the quantile
    is the smallest value whose cumulated weight reaches the level. BadSettings for a level at
    which that is infinity.

    >>> source_quantiles([np.array([1.0, 3.0]), np.array([2.0])], [0.5])
    {'0.5': 2.0}
    """
    count = len(scores)
    flat = np.concatenate(scores)
    order = np.argsort(flat, kind="stable")
    cumulated = np.cumsum(_weights(scores)[order]) / (count + 1)
    quantiles = {}
    for level in levels:
        _require_support(count, level)
        place = min(int(np.searchsorted(cumulated, level - _TIE)), len(flat) - 1)
        quantiles[level_key(level)] = float(flat[order[place]])
    return quantiles


def fit_rule(points: Sequence[Points], levels: Sequence[float]) -> Rule:
    """Return form, s0 and quantiles from the points of each calibration source.

    The form is the one under which errors are likeliest to be Laplace with a scale proportional to
    what the quantile multiplies, every source weighing the same: the least of log mean(error / u) +
    mean(log u). It is one number of all rows, so choosing by it hardly shrinks the quantiles, which
    choosing the narrowest interval would. s0 is a multiple of the median over sources of their
    median sigma. Where sigma says nothing, or nothing is wrong anywhere, the form is absolute.
    """
    error = np.concatenate([own.error for own in points])
    sigma = np.concatenate([own.sigma for own in points])
    weight = _weights([own.error for own in points]) / len(points)

    def misfit(form: Rule) -> float:
        unit = form.unit(sigma)
        mean = float(weight @ (error / unit))
        return (math.log(mean) if mean else -math.inf) + float(weight @ np.log(unit))

    best = Rule(form="absolute", s0=0.0, quantiles={})
    typical = float(np.median([np.median(own.sigma) for own in points]))
    for share in _S0_PER_SIGMA if typical else ():
        form = Rule(form="scaled", s0=share * typical, quantiles={})
        if misfit(form) < misfit(best) - _TIE:
            best = form
    scores = [own.error / best.unit(own.sigma) for own in points]
    return best.model_copy(update={"quantiles": source_quantiles(scores, levels)})


def _weights(by_source: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the weight of each value: 1 / n of a source's n."""
    return np.concatenate([np.full(len(own), 1.0 / len(own)) for own in by_source])


def _require_support(n_sources: int, level: float) -> None:
    if supports(n_sources, level):
        return
    needed = max(n_sources, math.floor(1.0 / (1.0 - level)) - 2)
    while not supports(needed, level):
        needed += 1
    most = math.floor(1000 * n_sources / (n_sources + 1)) / 1000
    raise BadSettings(
        f"{n_sources} sources do not support an interval at that level",
        expected=f"at most {most:g}",
        found=f"{level:g}",
        fix=f"ask for less, or calibrate on {needed} sources",
    )


# -- intervals.json -------------------------------------------------------------------------------

_Share = Annotated[float, Field(ge=0, le=1)]
_Width = Annotated[float, Field(ge=0)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(OneFault, BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class SourceCoverage(_Record):
    """The share of a source's points that fell inside, and the mean width from end to end."""

    coverage: _Share
    width: _Width


class LevelCoverage(_Record):
    """Measured coverage at one level, every judged source weighing the same."""

    mean: _Share
    worst: _Share
    worst_source: str
    mean_width: _Width
    by_source: dict[str, SourceCoverage]


class PoolCoverage(_Record):
    """Measured coverage of one pool by method and level, and the rule that each source met.

    `left_out` says for a method and a level why there is no figure.
    """

    hierarchical: dict[str, LevelCoverage]
    gaussian: dict[str, LevelCoverage]
    permuted_split: dict[str, LevelCoverage]
    left_out: dict[str, dict[str, str]]
    rules: dict[str, Rule]


class MeasuredCoverage(_Record):
    """Coverage of intervals on sources that neither the model nor the calibration had seen."""

    judged_sources: tuple[str, ...]
    n_pairs: Annotated[int, Field(ge=1)]
    n_pairs_possible: Annotated[int, Field(ge=1)]
    capped: bool
    by_pool: dict[str, PoolCoverage]


class IntervalsFile(_Record):
    """What `intervals.json` holds: the rules, what supports them, and how they did."""

    schema_version: Literal[1] = 1
    method: Literal["hierarchical_conformal"] = "hierarchical_conformal"
    corpus_sha256: _Sha256
    seeds: tuple[Annotated[int, Field(ge=0)], ...]
    predictions: dict[int, _Sha256]
    target: str
    n_calibration_sources: Annotated[int, Field(ge=LEAST_SOURCES)]
    sources: tuple[str, ...]
    excluded_sources: tuple[str, ...]
    default_level: Annotated[float, Field(gt=0, lt=1)]
    by_pool: dict[str, Rule]
    coverage: MeasuredCoverage

    @model_validator(mode="after")
    def _is_whole(self) -> IntervalsFile:
        for pool in pools_of(self.unit):
            if pool not in self.by_pool or pool not in self.coverage.by_pool:
                raise ValueError(f"pool {pool} is missing")
            if level_key(self.default_level) not in self.by_pool[pool].quantiles:
                raise ValueError(f"pool {pool} has no quantile of the default level")
            measured = self.coverage.by_pool[pool]
            if not measured.hierarchical or measured.hierarchical.keys() - measured.gaussian.keys():
                raise ValueError(f"pool {pool} has no measured coverage")
        return self

    @property
    def unit(self) -> str:
        """What a row is, `frame` or `clip`: also the name of the pool of a single row."""
        return CLIP if CLIP in self.by_pool else POOLS[0]

    def speaks_of(self, corpus_sha256: str | None, predictions: Mapping[int, str]) -> bool:
        """Tell whether it was made from just these predictions, by hash, of that corpus."""
        return self.corpus_sha256 == corpus_sha256 and self.predictions == dict(predictions)


def write_intervals(path: Path, intervals: IntervalsFile) -> None:
    """Write `intervals` as JSON, atomically; the same intervals give the same bytes."""
    write_json(path, intervals.model_dump(mode="json"))


def parse_intervals(content: bytes, path: Path) -> IntervalsFile:
    """Return the record in `content`, which came from `path`; BadEvidence where it is none."""
    fix = f"remove the file, or calibrate again (loso calibrate {path.parent})"
    return parse_record(IntervalsFile, content, path, refusal=BadEvidence, fix=fix)
