"""How far below the estimate a promise has to stay: calibrated on sources whose truth is known.

To choose by a lower bound is selection: among many settings the one is taken whose estimate errs
upwards. So the margin is calibrated for the choice as a whole, not for the error at one setting.
With margin m the cheapest setting is chosen whose estimate is at least target + m. Of a source
whose truth is known, that choice breaks the promise exactly as long as the best setting that truly
misses the target is still estimated at target + m or more. Hence a source needs

    estimate(the best setting that truly misses) - target < m

and the margin is the conformal quantile of these needs over sources: of a new source, drawn as
these were, the promise is broken with probability 1 - level at most (split conformal prediction;
it is also conformal risk control, Angelopoulos and others, arXiv 2208.02814, of the loss "broken").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from loso.intervals import choose_level, level_key, source_quantiles

__all__ = ["Bound", "fit_bound", "joint_level", "need_of"]

NO_NEED: Final = -math.inf
"""Of a source whose every setting meets the target: no choice can break the promise."""

_HAIR: Final = 1e-9
"""The margin has to be above the need, not at it."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How far a promise stays below the estimate at `level`, and what that rests on."""

    level: float
    margin: float
    n_sources: int
    estimated: str = "estimated from segments"
    """How, in the words that people are told."""

    @property
    def evidence(self) -> str:
        """What people are told of where the bound comes from."""
        return f"{self.estimated}, bound supported by {self.n_sources} sources"

    def beside(self, other: Bound) -> Bound:
        """Return the bound where both count: it fails where one of them does, at most."""
        return Bound(
            level=joint_level(self.level, other.level),
            margin=self.margin + other.margin,
            n_sources=min(self.n_sources, other.n_sources),
            estimated=f"{self.estimated} and {other.estimated.removeprefix('estimated ')}",
        )


def joint_level(one: float, other: float) -> float:
    """Return with which probability two promises hold, however they hang together.

    >>> joint_level(0.9, 0.9)
    0.8
    """
    return round(max(one + other - 1.0, 0.0), 9)


def need_of(estimates: Sequence[float], truths: Sequence[float], target: float) -> float:
    """Return how large a margin the choice on one source needs, at least.

    `estimates` and `truths` are the scores of each setting, best first, and fall. This is the
    definition, for where all of them are known: it is what others are checked by. Where few are,
    `calibrate` searches for the setting that misses, and `grids` interpolates.

    >>> need_of([97.0, 93.0, 88.5], [96.0, 91.0, 87.0], 90.0)
    -1.5
    """
    missing = [at for at, truth in enumerate(truths) if truth < target]
    return estimates[missing[0]] - target if missing else NO_NEED


def fit_bound(
    needs: Mapping[str, Sequence[float]],
    level: float | None = None,
    *,
    estimated: str = Bound.estimated,
) -> Bound:
    """Return the bound of the needs of each source, which weighs the same however many it has.

    The margin is never below 0: where sources are better than their estimates, nothing is added.
    BadSettings under four sources, and for a level that they do not support; the default is that of
    `intervals.choose_level`.
    """
    chosen = choose_level(len(needs), level)
    quantile = source_quantiles([np.array(own) for own in needs.values()], [chosen])
    margin = max(quantile[level_key(chosen)] + _HAIR, 0.0)
    return Bound(level=chosen, margin=margin, n_sources=len(needs), estimated=estimated)
