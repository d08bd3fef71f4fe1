"""How often the bound of `loso recommend` keeps its promise, on sources that are simulated.

Their curves and errors are drawn from measured ones: a dozen clips cannot show that 0.8 means 0.8.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from loso.intervals import supports
from loso.recommend.bound import fit_bound, need_of
from loso.recommend.scale import scale_of
from loso.recommend.search import bracket_of, next_setting, predicted
from loso.video.encoders import ENCODERS
from recommend_truth import JUDGE, Truth

Vector = NDArray[np.float64]

LEVELS, N_KNOWN, TRIALS = (0.8, 0.9, 0.95), (4, 9, 19), 1000
SHIFT, SPREAD = 3.0, 0.5
"""Of simulated sources: how far in settings curves are moved, and by what errors are scaled (both
standard deviations, that of the scale in the logarithm)."""
ERRORS = {"as measured": (1,), "of either sign": (1, -1)}
SURE = 1e-3
"""The chance that a bound which holds is reported as broken."""


@dataclass(frozen=True, eq=False)
class Curves:
    """What a clip and its segments score at each setting, (settings,), both falling."""

    whole: Vector
    cut: Vector
    usual: Vector
    """Where a search begins."""


def curves_of(truth: Truth, encoder: str) -> Curves:
    """Return curves through what was measured, beyond it as such curves usually go on."""
    low, high = truth.near
    usual = JUDGE.prior(scale_of(ENCODERS[encoder], 1.0).usual_places)
    whole = predicted(truth.scores, usual)
    places = np.arange(low, high + 1)
    error = [truth.segments[at] - truth.scores[at] for at in places.tolist()]
    cut = whole + np.interp(np.arange(len(usual)), places, error)
    return Curves(whole, np.minimum.accumulate(cut), usual)


def drawn(
    random: np.random.Generator, known: Sequence[Curves], signs: Sequence[int]
) -> tuple[Vector, Vector]:
    """Return a source's truths and estimates: one clip's curve moved, another's error scaled.

    The error is that which segments had at the same score, times one of `signs`.
    """
    one, other = (known[at] for at in random.integers(len(known), size=2))
    places = np.arange(len(one.whole))
    truths = np.interp(places + random.normal(0, SHIFT), places, one.whole)
    error = np.interp(truths, other.whole[::-1], (other.cut - other.whole)[::-1])
    estimates = truths + random.choice(signs) * error * np.exp(random.normal(0, SPREAD))
    return truths, np.minimum.accumulate(np.clip(estimates, 0, 100))


def choose(estimates: Vector, aim: float, usual: Vector) -> int:
    """Return the setting that a search settles on, -1 where none meets the aim."""
    scores: dict[int, float] = {}
    while (place := next_setting(scores, aim, usual, made=len(scores))) is not None:
        scores[place] = float(estimates[place])
    return bracket_of(scores, aim, len(usual)).meets


def promises(
    random: np.random.Generator,
    known: Sequence[Curves],
    *,
    n_known: int,
    level: float,
    targets: Sequence[float],
    errors: str,
) -> dict[str, Any]:
    """Return how many promises to new sources were kept, with a bound and without, and its cost."""
    margins: list[float] = []
    kept = {True: 0, False: 0}
    steps: dict[bool, list[int]] = {True: [], False: []}
    for trial in range(TRIALS):
        target = targets[trial % len(targets)]
        sources = [drawn(random, known, ERRORS[errors]) for _ in range(n_known)]
        needs = {f"{at}": [need_of([*e], [*t], target)] for at, (t, e) in enumerate(sources)}
        bound = fit_bound(needs, level)
        truths, estimates = drawn(random, known, ERRORS[errors])
        best = int(np.sum(truths >= target)) - 1
        margins.append(bound.margin)
        for bounded in (True, False):
            at = choose(estimates, target + bounded * bound.margin, known[0].usual)
            kept[bounded] += at < 0 or bool(truths[at] >= target)
            if at >= 0:
                steps[bounded].append(best - at)
    return {
        "errors": errors,
        "sources": n_known,
        "level": level,
        "kept": kept[True] / TRIALS,
        "least": float(binom.ppf(SURE, TRIALS, level)) / TRIALS,
        "kept_without": kept[False] / TRIALS,
        "margin": statistics.median(margins),
        "steps": statistics.median(steps[True]),
        "mean_steps": statistics.mean(steps[True]),
        "mean_steps_without": statistics.mean(steps[False]),
        "no_answer": TRIALS - len(steps[True]),
    }


def all_promises(known: Sequence[Curves], targets: Sequence[float]) -> list[dict[str, Any]]:
    """Return how promises were kept for every kind of errors, number of sources and level."""
    random = np.random.default_rng(7)
    return [
        promises(random, known, n_known=count, level=level, targets=targets, errors=errors)
        for errors, count, level in product(ERRORS, N_KNOWN, LEVELS)
        if supports(count, level)
    ]


def print_promises(kept: Sequence[dict[str, Any]]) -> None:
    """Print what `all_promises` returned."""
    print(
        f"{'errors':16}sources  level   kept  at least  without  margin  steps  mean  without  "
        "no answer"
    )
    for of in kept:
        print(
            f"{of['errors']:16}{of['sources']:7}{of['level']:7.2f}{of['kept']:7.3f}{of['least']:10.3f}"
            f"{of['kept_without']:9.3f}{of['margin']:8.2f}{of['steps']:7.1f}{of['mean_steps']:6.2f}"
            f"{of['mean_steps_without']:9.2f}{of['no_answer']:11}"
        )
