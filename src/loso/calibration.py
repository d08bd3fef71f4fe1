"""A trained run gets its intervals: calibrated over its sources, their coverage measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.corpus.load import Corpus
from loso.corpus.view import view
from loso.coverage import LeavingOut, Questions, choose_judged, measure_coverage
from loso.crossval import fit_and_predict
from loso.engine import choose
from loso.errors import BadEvidence, BadSettings
from loso.evidence import Evidence, collect_evidence, differ
from loso.files import read_file
from loso.folds import leave_two_sources_out
from loso.inputs import Inputs, build_inputs
from loso.intervals import (
    LEVELS,
    IntervalsFile,
    Rule,
    choose_level,
    fit_rule,
    parse_intervals,
    pools_of,
    write_intervals,
)
from loso.locks import folder_lock
from loso.progress import Progress, silent
from loso.recheck import check_against_corpus, read_predictions
from loso.recipe import DEFAULT_SEEDS, Compute, Recipe, check_seeds
from loso.run_folder import INTERVALS_FILE
from loso.seedfile import recipe_of, training_command

__all__ = [
    "OpenedRun",
    "calibrate_run",
    "check_rules",
    "clip_numbers",
    "open_run",
    "standing_intervals",
]

_PURPOSE: Final = "calibrate intervals on"


@dataclass(frozen=True)
class OpenedRun:
    """A run that can be judged: its evidence, its recipe, and the rows and inputs it was made of.

    `out_of_fold` is (seeds, rows), seeds ascending, rows those of `seen`.
    """

    evidence: Evidence
    recipe: Recipe
    seen: Corpus
    inputs: Inputs
    out_of_fold: NDArray[np.float64]


def open_run(run_dir: Path, corpus: Corpus, seeds: Sequence[int], purpose: str) -> OpenedRun:
    """Return a trained run with the rows of `corpus` behind it; BadEvidence where it is not of it.

    `purpose` says in a refusal what predictions are needed for.
    """
    evidence = _collect(run_dir, seeds, purpose)
    tables = read_predictions(evidence)
    check_against_corpus(evidence, tables, corpus)
    return _opened(evidence, tables, corpus)


def _opened(evidence: Evidence, tables: Mapping[int, pl.DataFrame], corpus: Corpus) -> OpenedRun:
    recipe = recipe_of(next(iter(evidence.seed_files.values())))
    seen = view(corpus, recipe, evidence.excluded_sources)
    return OpenedRun(
        evidence=evidence,
        recipe=recipe,
        seen=seen,
        inputs=build_inputs(seen, recipe),
        out_of_fold=np.stack([table["y_pred"].to_numpy() for table in tables.values()]),
    )


def calibrate_run(
    run_dir: Path,
    corpus: Corpus,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    *,
    level: float | None = None,
    pairs: int | None = None,
    compute: Compute | None = None,
    progress: Progress = silent,
) -> IntervalsFile:
    """Return the intervals of a trained run, which stand in its `intervals.json` from now on.

    The rules come from the run's own out-of-fold predictions of all its sources, the coverage from
    refits of its recipe. BadEvidence where the run cannot be judged or is not of `corpus`,
    BadSettings where its sources do not support `level`; nothing is written then. Busy where
    another process works in the folder.
    """
    run_dir, compute, seeds = Path(run_dir), compute or Compute(), check_seeds(seeds, least=2)
    choose(compute.engine, compute.device)
    # Before the lock: a refusal leaves no trace in a folder that is none.
    _collect(run_dir, seeds, _PURPOSE)
    with folder_lock(run_dir, "calibration"):
        opened = open_run(run_dir, corpus, seeds, _PURPOSE)
        evidence, recipe, questions = opened.evidence, opened.recipe, _questions(opened)
        n_sources = len(questions.names)
        chosen = choose_level(n_sources, level)
        levels = sorted({*LEVELS, chosen})
        judged = choose_judged(n_sources, pairs)
        intervals = IntervalsFile(
            corpus_sha256=corpus.sha256,
            seeds=tuple(evidence.seed_files),
            predictions=dict(evidence.predictions_sha256),
            target=recipe.target,
            n_calibration_sources=n_sources,
            sources=questions.names,
            excluded_sources=evidence.excluded_sources,
            default_level=chosen,
            by_pool=_rules(questions, opened.out_of_fold, levels),
            coverage=measure_coverage(
                questions,
                opened.out_of_fold,
                _refits(
                    questions,
                    opened.inputs,
                    recipe,
                    tuple(evidence.seed_files),
                    compute=compute,
                    progress=progress,
                ),
                levels,
                judged,
            ),
        )
        write_intervals(run_dir / INTERVALS_FILE, intervals)
    return intervals


def check_rules(
    intervals: IntervalsFile,
    evidence: Evidence,
    predictions: Mapping[int, pl.DataFrame],
    corpus: Corpus,
) -> None:
    """Refuse, as BadEvidence, intervals whose rules are not what the predictions give.

    Measured coverage rests on refits and is not computed again here.
    """
    opened = _opened(evidence, predictions, corpus)
    questions = _questions(opened)
    levels = sorted({*LEVELS, intervals.default_level})
    try:
        computed = _rules(questions, opened.out_of_fold, levels)
    except BadSettings as error:
        raise BadEvidence(str(error), where=str(evidence.loso_dir / INTERVALS_FILE)) from None
    path = evidence.loso_dir / INTERVALS_FILE
    for what, ours, theirs in (
        ("sources", questions.names, intervals.sources),
        ("n_calibration_sources", len(questions.names), intervals.n_calibration_sources),
        ("by_pool", computed.keys(), intervals.by_pool.keys()),
        *(
            (f"by_pool.{pool}", rule, intervals.by_pool.get(pool))
            for pool, rule in computed.items()
        ),
    ):
        if not _same(ours, theirs):
            raise BadEvidence(
                f"{what} is not what the predictions give",
                where=str(path),
                expected=f"{ours}",
                found=f"{theirs}",
                fix="calibrate again with loso calibrate",
            )


def _same(ours: object, theirs: object) -> bool:
    if not isinstance(ours, Rule) or not isinstance(theirs, Rule):
        return ours == theirs
    numbers = [(ours.s0, theirs.s0)]
    numbers += [(value, theirs.quantiles.get(k, -1.0)) for k, value in ours.quantiles.items()]
    same_kind = ours.form == theirs.form and ours.quantiles.keys() == theirs.quantiles.keys()
    return same_kind and not any(differ(one, two) for one, two in numbers)


def _questions(opened: OpenedRun) -> Questions:
    names, source = np.unique(opened.seen.rows["src"].to_numpy(), return_inverse=True)
    return Questions(
        opened.inputs.target,
        source,
        clip_numbers(opened.seen),
        tuple(map(str, names)),
        opened.recipe.unit,
    )


def _rules(
    questions: Questions, out_of_fold: NDArray[np.float64], levels: Sequence[float]
) -> dict[str, Rule]:
    """Return the rule of each pool from the residuals of all sources."""
    own = [np.flatnonzero(questions.source == code) for code in range(len(questions.names))]
    of_source = [questions.points(rows, out_of_fold[:, rows]) for rows in own]
    return {
        pool: fit_rule([points[pool] for points in of_source], levels)
        for pool in pools_of(questions.unit)
    }


def standing_intervals(run_dir: Path, seeds: Sequence[int]) -> IntervalsFile | None:
    """Return the intervals in a run's folder where they are of these seeds as they stand there.

    None where there are none, where the file is damaged and where it speaks of other predictions.
    BadEvidence where the run cannot be judged.
    """
    path = Path(run_dir) / INTERVALS_FILE
    evidence = _collect(Path(run_dir), seeds, _PURPOSE)
    try:
        found = parse_intervals(read_file(path), path)
    except (OSError, BadEvidence):
        return None
    record = next(iter(evidence.seed_files.values()))
    return found if found.speaks_of(record.corpus_sha256, evidence.predictions_sha256) else None


def _collect(run_dir: Path, seeds: Sequence[int], purpose: str) -> Evidence:
    evidence = collect_evidence(run_dir, seeds)
    lacking = sorted(evidence.seed_files.keys() - evidence.predictions_sha256.keys())
    if lacking:
        raise BadEvidence(
            f"no predictions of seed {', '.join(map(str, lacking))} to {purpose}",
            where=str(run_dir),
            fix="files of the replaced trainer have none: train again with "
            + training_command(run_dir, lacking, force=True),
        )
    return evidence


def clip_numbers(corpus: Corpus) -> NDArray[np.int64]:
    """Return a number for each row that the rows of one encode share: identity without frame."""
    names = [name for name in corpus.identity if name != "frame_index"]
    rows = corpus.rows.select(*names, at=pl.int_range(pl.len()))
    groups = rows.group_by(names, maintain_order=True).agg("at").with_row_index("number")
    of_row = groups.explode("at").sort("at")["number"]
    return of_row.cast(pl.Int64).to_numpy()


def _refits(
    questions: Questions,
    inputs: Inputs,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    compute: Compute,
    progress: Progress,
) -> LeavingOut:
    """Return what trains the run's recipe without two sources and predicts both."""
    source = np.array(questions.names)[questions.source]

    def leaving_out(pairs: Sequence[tuple[int, int]]) -> Iterable[NDArray[np.float64]]:
        folds = leave_two_sources_out(source, pairs)
        predicted, _ = fit_and_predict(
            inputs, folds, recipe, seeds, compute=compute, progress=progress
        )
        return (np.stack(of_seeds) for of_seeds in zip(*predicted, strict=True))

    return leaving_out
