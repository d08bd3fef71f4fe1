"""The work of a sweep: networks that are trained together, and what they say of unseen rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loso.crossval import fit_each
from loso.engine.network import layer_shapes
from loso.errors import Diverged
from loso.folds import Fold, leave_one_source_out, leave_two_sources_out
from loso.inputs import Inputs, block_names, feature_names
from loso.progress import Progress
from loso.recipe import Compute, InputSpec, Recipe
from loso.sweep.scores import LeftOut

__all__ = ["Found", "Job", "cost_of", "fit_job", "fit_jobs"]

_MOST_ROW_NUMBERS: Final = 2**26
"""Training rows of all folds of a plan, counted: their numbers take 256 MB."""

_OVERHEAD: Final = 1600
"""Parameters that cost as much as what a step takes beside them (docs/performance.md, 16 to 512
units)."""

Found = dict[int, dict[LeftOut, NDArray[np.float64] | Diverged]]
"""By seed, what each network predicts of the rows it lacks, ascending, or why it does not."""


@dataclass(frozen=True)
class Job:
    """Networks of one recipe: for each seed one without each of `left_out`."""

    recipe: Recipe
    seeds: tuple[int, ...]
    left_out: tuple[LeftOut, ...]


def cost_of(recipe: Recipe) -> int:
    """Return what training costs a row: its parameters, as often as it is passed.

    >>> cost_of(Recipe(epochs=10, hidden=1, depth=1))
    230
    """
    return recipe.epochs * _parameters(recipe)


def _parameters(recipe: Recipe) -> int:
    width = len(feature_names(recipe.inputs)) + len(block_names(recipe.inputs))
    return sum(out * (into + 1) for out, into in layer_shapes(width, recipe))


def fit_jobs(
    jobs: Sequence[Job],
    inputs_of: Callable[[InputSpec], Inputs],
    source: NDArray[np.str_],
    *,
    compute: Compute,
    progress: Progress,
) -> Iterator[tuple[Job, Found]]:
    """Yield each job with what its networks predict, as it is done.

    A job is one plan of training where memory allows it, so that engines train all of it at once.
    """
    parts = [_parts(job, len(source)) for job in jobs]
    total = sum(_work(part) for of_job in parts for part in of_job)
    done = 0.0
    for number, (job, of_job) in enumerate(zip(jobs, parts, strict=True), start=1):
        found: Found = {seed: {} for seed in job.seeds}
        for part in of_job:
            inside = _inside(progress, done, _work(part), total, f"recipe {number} of {len(jobs)}")
            of_part = fit_job(
                part, inputs_of(job.recipe.inputs), source, compute=compute, progress=inside
            )
            for seed, predicted in of_part.items():
                found[seed] |= predicted
            done += _work(part)
        yield job, found


def fit_job(
    job: Job,
    inputs: Inputs,
    source: NDArray[np.str_],
    *,
    compute: Compute,
    progress: Progress,
) -> Found:
    """Return what the networks of a job predict, all of them trained in one plan."""
    folds = _folds(source, job.left_out)
    predicted, _ = fit_each(
        inputs, folds, job.recipe, job.seeds, compute=compute, progress=progress
    )
    return {
        seed: dict(zip(job.left_out, of_folds, strict=True))
        for seed, of_folds in zip(job.seeds, predicted, strict=True)
    }


def _folds(source: NDArray[np.str_], left_out: Sequence[LeftOut]) -> list[Fold]:
    """Return the fold of each of `left_out`, at the address it has in a run and in its refits."""
    alone = leave_one_source_out(source)
    pairs = [(each[0], each[1]) for each in left_out if len(each) == 2]
    of_pair = dict(zip(pairs, leave_two_sources_out(source, pairs), strict=True))
    return [of_pair[each[0], each[1]] if len(each) == 2 else alone[each[0]] for each in left_out]


def _parts(job: Job, rows: int) -> list[Job]:
    at_once = max(1, _MOST_ROW_NUMBERS // rows)
    starts = range(0, len(job.left_out), at_once)
    return [replace(job, left_out=job.left_out[i : i + at_once]) for i in starts]


def _work(job: Job) -> float:
    """Return how long a job takes beside another; folds of one corpus are taken as equal."""
    a_row = job.recipe.epochs * (_parameters(job.recipe) + _OVERHEAD)
    return float(a_row * len(job.seeds) * len(job.left_out))


def _inside(progress: Progress, before: float, own: float, whole: float, title: str) -> Progress:
    """Return what reports the progress of a part as that of the whole."""

    def report(done: float, total: float, note: str = "") -> None:
        progress(before + own * done / total, whole, f"{title}, {note}" if note else title)

    return report
