"""A sweep: for every held-out source a recipe chosen without it, and what that choice is worth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from loso.corpus.load import Corpus
from loso.corpus.view import view
from loso.coverage import choose_judged, pairs_of
from loso.engine import choose
from loso.errors import BadCorpus, BadInput, BadSettings
from loso.files import sweep_folder, to_json
from loso.inputs import Inputs, build_inputs
from loso.locks import folder_lock
from loso.progress import Progress, of_stage, silent
from loso.recipe import DEFAULT_SEEDS, Compute, InputSpec, Recipe, check_seeds
from loso.run_folder import fingerprint_of
from loso.spelling import did_you_mean
from loso.sweep.choose import CRITERIA, Chosen, choose_recipe
from loso.sweep.ensembles import Ensembles
from loso.sweep.figures import summarise_sweep
from loso.sweep.fits import Job, cost_of, fit_jobs
from loso.sweep.grid import Candidate, build_grid
from loso.sweep.kept import Kept
from loso.sweep.records import SWEEP_FILE, SweepFile, write_sweep
from loso.sweep.scores import Question, RecipeScores, score_recipe

__all__ = ["MOST_PAIRS", "Swept", "sweep_recipes"]

MOST_PAIRS: Final = 1225
"""Pairs of fifty sources: a recipe is fitted without each, so beyond them fewer are judged."""

_KEPT: Final = "fits"
"""Folder of what is kept, inside that of the sweep."""

_InputsOf = Callable[[InputSpec], Inputs]


@dataclass(frozen=True)
class Swept:
    """A sweep's record, its recipes, how many were fitted or kept to choose, and what to tell."""

    record: SweepFile
    candidates: tuple[Candidate, ...]
    fitted: int
    kept: int
    wall_time_s: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Work:
    """What every step of a sweep needs: recipes, question, inputs, and where results are kept."""

    candidates: tuple[Candidate, ...]
    usual: int
    question: Question
    by: str
    ensembles: Ensembles
    inputs_of: _InputsOf
    compute: Compute

    @property
    def costs(self) -> list[int]:
        return [cost_of(candidate.recipe) for candidate in self.candidates]


def sweep_recipes(
    out_dir: Path,
    corpus: Corpus,
    base: Recipe,
    varied: Mapping[str, Sequence[Any]],
    seeds: Sequence[int] = DEFAULT_SEEDS,
    *,
    by: str = CRITERIA[0],
    pairs: int | None = None,
    exclude_sources: Sequence[str] = (),
    compute: Compute | None = None,
    progress: Progress = silent,
) -> Swept:
    """Return a sweep over the grid of `varied` about `base`, which stands in `sweep.json` then.

    For each judged source a recipe is chosen by the first of `seeds` on the other sources, each
    predicted by networks that lack it and the judged one; the ensemble of all seeds without the
    judged source reports. Beside it stand the recipe that is best over all sources, whose own
    figure flatters, and `base`. What is fitted is kept in `out_dir`, and not fitted again. What
    cannot be used is refused before anything is written; Refused where no recipe is left, Busy
    where another process works in the folder.
    """
    out_dir, clock = Path(out_dir), time.monotonic()
    compute, seeds = compute or Compute(), check_seeds(seeds)
    if by not in CRITERIA:
        raise BadSettings(
            "no such criterion",
            expected=" or ".join(CRITERIA),
            found=by,
            fix=did_you_mean(by, CRITERIA),
        )
    candidates, usual = build_grid(base, varied)
    engine, device = choose(compute.engine, compute.device)
    question = _question(corpus, base, exclude_sources, pairs)

    @lru_cache(maxsize=1)  # jobs of one kind of inputs follow each other
    def inputs_of(spec: InputSpec) -> Inputs:
        recipe = replace(base, inputs=spec)
        return build_inputs(view(corpus, recipe, exclude_sources), recipe)

    warnings = _check_inputs(candidates, inputs_of)

    def making(recipe: Recipe) -> dict[str, Any]:
        made = fingerprint_of(corpus, recipe, exclude_sources, engine=engine, device=device)
        del made["corpus"], made["note"]
        return {**made, "inputs": asdict(recipe.inputs), "key": corpus.key}

    with folder_lock(out_dir, "a sweep"):
        sweep_folder(out_dir / _KEPT)
        kept = Kept(out_dir / _KEPT, making)
        work = _Work(
            candidates=candidates,
            usual=usual,
            question=question,
            by=by,
            ensembles=Ensembles(kept, seeds, question.names),
            inputs_of=inputs_of,
            compute=replace(compute, engine=engine, device=device),
        )
        scores, n_kept = _score_all(work, kept, seeds[0], of_stage("choosing", progress))
        chosen = _fit_chosen(work, scores, of_stage("reporting", progress))
        made = making(base)
        record = summarise_sweep(
            candidates,
            scores,
            chosen,
            question,
            work.ensembles,
            usual=usual,
            made={
                "by": by,
                "base": json.loads(to_json(asdict(base))),
                **{name: made[name] for name in ("corpus_sha256", "excluded_sources", "unit")},
                **{name: made[name] for name in ("engine", "versions")},
            },
        )
        write_sweep(out_dir / SWEEP_FILE, record)
    return Swept(
        record=record,
        candidates=candidates,
        fitted=len(candidates) - n_kept,
        kept=n_kept,
        wall_time_s=time.monotonic() - clock,
        warnings=warnings,
    )


def _question(
    corpus: Corpus, base: Recipe, exclude_sources: Sequence[str], pairs: int | None
) -> Question:
    seen = view(corpus, base, exclude_sources)
    if len(seen.sources) < 3:
        raise BadCorpus(
            "a nested choice needs three sources: one to judge, one to choose by, one to train on",
            where=str(corpus.path),
            found=f"{len(seen.sources)} ({', '.join(seen.sources)})",
            fix="add clips of other sources, or compare recipes with loso train",
        )
    n_sources = len(seen.sources)
    allowed = max(MOST_PAIRS, n_sources - 1) if pairs is None else pairs
    return Question(
        y_true=build_inputs(seen, base).target,
        source=np.asarray(seen.rows["src"].to_numpy(), dtype=np.str_),
        names=seen.sources,
        judged=choose_judged(n_sources, allowed),
        target=base.target,
    )


def _check_inputs(candidates: Sequence[Candidate], inputs_of: _InputsOf) -> tuple[str, ...]:
    """Return what inputs warn of; a recipe that the corpus cannot feed is refused by its name."""
    first = {candidate.recipe.inputs: candidate for candidate in reversed(candidates)}
    warnings: dict[str, None] = {}
    for spec, candidate in first.items():
        try:
            warnings |= dict.fromkeys(inputs_of(spec).warnings)
        except BadInput as error:
            raise type(error)(
                error.problem,
                where=f"recipe {candidate.name}, {error.where}",
                expected=error.expected,
                found=error.found,
                fix=error.fix,
            ) from None
    return tuple(warnings)


def _score_all(
    work: _Work, kept: Kept, seed: int, progress: Progress
) -> tuple[list[RecipeScores], int]:
    """Return the scores of every recipe, and how many of them were there already."""
    question, judged = work.question, work.question.judged_names
    recipes = [candidate.recipe for candidate in work.candidates]
    scores = {recipe: kept.scores(recipe, seed, judged) for recipe in recipes}
    alone = [(s,) for s in range(len(question.names))]
    left_out = (*alone, *pairs_of(question.judged, len(question.names)))
    missing = [recipe for recipe in recipes if scores[recipe] is None]
    jobs = [Job(recipe, (seed,), left_out) for recipe in _by_inputs(missing)]
    for job, found in fit_jobs(
        jobs, work.inputs_of, question.source, compute=work.compute, progress=progress
    ):
        work.ensembles.add(job.recipe, found)
        own = score_recipe(found[seed], question)
        kept.keep_scores(job.recipe, seed, judged, own)
        scores[job.recipe] = own
    there = [each for recipe in recipes if (each := scores[recipe]) is not None]
    return there, len(recipes) - len(missing)


def _by_inputs(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Return recipes with those of the same inputs side by side."""
    first = list(dict.fromkeys(recipe.inputs for recipe in recipes))
    return sorted(recipes, key=lambda recipe: first.index(recipe.inputs))


def _fit_chosen(work: _Work, scores: Sequence[RecipeScores], progress: Progress) -> Chosen:
    """Return the choices, with all their ensembles fitted.

    A recipe that is chosen and diverges with another seed is out where it did, and the next best
    takes its place.
    """
    judged = work.question.judged_names
    recipes = [candidate.recipe for candidate in work.candidates]
    lost: dict[tuple[int, str], str] = {}
    while True:
        chosen = _choices(work, scores, lost)
        needed = {number: set(judged) for number in (work.usual, chosen.overall.order[0])}
        for source, choice in chosen.of_fold.items():
            needed.setdefault(choice.order[0], set()).add(source)
        jobs = work.ensembles.lacking({recipes[n]: sorted(own) for n, own in needed.items()})
        for job, found in fit_jobs(
            jobs, work.inputs_of, work.question.source, compute=work.compute, progress=progress
        ):
            work.ensembles.add(job.recipe, found)
        before = len(lost)
        for number, sources in needed.items():
            for source in sorted(sources):
                reason = work.ensembles.lost(recipes[number], source)
                if reason is not None:
                    lost[number, source] = reason
        if len(lost) == before:
            return chosen


def _choices(
    work: _Work, scores: Sequence[RecipeScores], lost: Mapping[tuple[int, str], str]
) -> Chosen:
    costs, by = work.costs, work.by
    of_fold = {}
    for source in work.question.judged_names:
        inner = [own.inner[source] for own in scores]
        out = {number: own.out for number, own in enumerate(inner) if own.out is not None}
        out |= {number: reason for (number, at), reason in lost.items() if at == source}
        of_fold[source] = choose_recipe(
            [own.scores for own in inner], costs, by, out=out, where=f"held out {source}"
        )
    out = {number: own.out for number, own in enumerate(scores) if own.out is not None}
    out |= {number: reason for (number, _), reason in lost.items()}
    overall = choose_recipe(
        [own.plain for own in scores], costs, by, out=out, where="over all sources"
    )
    return Chosen(of_fold, overall)
