"""How well predictions agree with scores, pooled and within each source; how well panels agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from loso.metrics.correlation import Correlation, finite_pair, krocc, plcc, srocc
from loso.metrics.error import rmse

__all__ = ["Agreement", "PanelAgreement", "SourceAgreement", "measure_agreement", "panel_agreement"]


@dataclass(frozen=True)
class SourceAgreement:
    """One source's rows: their number, their PLCC and their RMSE in the target's unit."""

    source: str
    n_rows: int
    plcc: Correlation
    rmse: float


@dataclass(frozen=True)
class Agreement:
    """Figures over all rows pooled, the mean PLCC within a source, and the worst sources.

    `worst_plcc` is the source with the lowest PLCC among those that have one (None if none has),
    `worst_rmse` the one with the largest RMSE; of equals the first by name.
    """

    n_rows: int
    n_sources: int
    plcc: Correlation
    srocc: Correlation
    krocc: Correlation
    rmse: float
    mean_within_plcc: Correlation
    worst_plcc: SourceAgreement | None
    worst_rmse: SourceAgreement
    by_source: tuple[SourceAgreement, ...]


def measure_agreement(y_true: ArrayLike, y_pred: ArrayLike, source: ArrayLike) -> Agreement:
    """Return how predictions agree with scores, over all rows and by source, ascending by name.

    Pooled figures also credit telling one source from another, the mean PLCC within sources does
    not. That mean weighs each source the same and is undefined, with their names, where a source
    has no PLCC. ValueError for no rows.

    >>> both = measure_agreement([1, 2, 4, 5], [1, 2, 5, 4], list("aabb"))
    >>> both.mean_within_plcc.value, both.worst_plcc.source
    (0.0, 'b')
    """
    true, pred = finite_pair(y_true, y_pred)
    of_row = np.asarray(source)
    if of_row.shape != true.shape:
        raise ValueError(f"source must be as long as y_true, got {of_row.shape} and {true.shape}")
    pooled_rmse = rmse(true, pred)
    by_source = []
    for name in np.unique(of_row):
        own = of_row == name
        figures = plcc(true[own], pred[own]), rmse(true[own], pred[own])
        by_source.append(SourceAgreement(str(name), int(own.sum()), *figures))
    defined = [each for each in by_source if each.plcc.value is not None]
    return Agreement(
        n_rows=len(true),
        n_sources=len(by_source),
        plcc=plcc(true, pred),
        srocc=srocc(true, pred),
        krocc=krocc(true, pred),
        rmse=pooled_rmse,
        mean_within_plcc=_mean_plcc(by_source),
        worst_plcc=min(defined, key=lambda each: each.plcc.value or 0.0, default=None),
        worst_rmse=max(by_source, key=lambda each: each.rmse),
        by_source=tuple(by_source),
    )


def _mean_plcc(by_source: list[SourceAgreement]) -> Correlation:
    values = [each.plcc.value for each in by_source if each.plcc.value is not None]
    if len(values) == len(by_source):
        return Correlation(math.fsum(values) / len(values))
    missing = [f"{each.source} ({each.plcc.reason})" for each in by_source if each.plcc.reason]
    return Correlation(None, f"no PLCC within {', '.join(missing)}")


@dataclass(frozen=True)
class PanelAgreement:
    """How two panels agree on clips that both rated, and what that leaves for a model of one.

    Where both panels rate with noise that is independent and of equal variance, no model of one
    can correlate with it beyond `plcc_ceiling` or come closer to it than `rmse_floor`.
    """

    n_clips: int
    plcc: Correlation
    rmse: float
    plcc_ceiling: Correlation
    rmse_floor: float


def panel_agreement(scores_a: ArrayLike, scores_b: ArrayLike) -> PanelAgreement:
    """Return the agreement of two panels' mean scores of the same clips, in the same order.

    The panels' PLCC r is the reliability of one panel, and a score correlates with anything at most
    by the root of its reliability (Spearman 1904; Lord and Novick 1968, section 3.9): the ceiling
    is sqrt(r). The variance of their difference is twice that of one panel's noise: the floor is
    rmse / sqrt(2). A constant offset between the panels raises it. ValueError for no clips.

    >>> panel_agreement([1, 2, 3, 4], [1, 3, 2, 4]).plcc_ceiling.value
    0.8944271909999159
    """
    correlation, distance = plcc(scores_a, scores_b), rmse(scores_a, scores_b)
    if correlation.value is None:
        reason = (correlation.reason or "").replace("y_true", "scores_a")
        correlation = ceiling = Correlation(None, reason.replace("y_pred", "scores_b"))
    elif correlation.value <= 0.0:
        ceiling = Correlation(None, "the panels do not correlate")
    else:
        ceiling = Correlation(math.sqrt(correlation.value))
    return PanelAgreement(
        n_clips=len(np.asarray(scores_a)),
        plcc=correlation,
        rmse=distance,
        plcc_ceiling=ceiling,
        rmse_floor=distance / math.sqrt(2.0),
    )
