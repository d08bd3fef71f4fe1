"""A trained run gets its intervals: calibrated over its sources, their coverage measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.corpus.load import Corpus
from loso.corpus.view import view
from loso.coverage import LeavingOut, Questions, choose_judged, measure_coverage
from loso.crossval import fit_and_predict
from loso.engine import choose
from loso.errors import BadEvidence
from loso.evidence import Evidence, collect_evidence
from loso.files import folder_lock
from loso.folds import Fold
from loso.inputs import Inputs, build_inputs
from loso.intervals import (
    LEVELS,
    POOLS,
    IntervalsFile,
    choose_level,
    fit_rule,
    parse_intervals,
    write_intervals,
)
from loso.progress import Progress, silent
from loso.recheck import check_against_corpus, read_predictions
from loso.recipe import DEFAULT_SEEDS, Compute, Recipe, check_seeds
from loso.run_folder import INTERVALS_FILE
from loso.seedfile import recipe_of, training_command

__all__ = ["calibrate_run", "standing_intervals"]


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
    _collect(run_dir, seeds)  # before the lock: a refusal leaves no trace in a folder that is none
    with folder_lock(run_dir, "calibration"):
        evidence = _collect(run_dir, seeds)
        tables = read_predictions(evidence)
        check_against_corpus(evidence, tables, corpus)
        record = next(iter(evidence.seed_files.values()))
        recipe = recipe_of(record)
        seen = view(corpus, recipe, evidence.excluded_sources)
        inputs = build_inputs(seen, recipe)
        names, source = np.unique(seen.rows["src"].to_numpy(), return_inverse=True)
        questions = Questions(inputs.target, source, _clips(seen), tuple(map(str, names)))
        chosen = choose_level(len(names), level)
        levels = sorted({*LEVELS, chosen})
        judged = choose_judged(len(names), pairs)
        out_of_fold = np.stack([table["y_pred"].to_numpy() for table in tables.values()])
        of_source = [
            questions.points(own, out_of_fold[:, own])
            for own in (np.flatnonzero(source == code) for code in range(len(names)))
        ]
        intervals = IntervalsFile(
            corpus_sha256=corpus.sha256,
            seeds=tuple(evidence.seed_files),
            predictions=dict(evidence.predictions_sha256),
            target=recipe.target,
            n_calibration_sources=len(names),
            sources=questions.names,
            excluded_sources=evidence.excluded_sources,
            default_level=chosen,
            by_pool={
                pool: fit_rule([points[pool] for points in of_source], levels) for pool in POOLS
            },
            coverage=measure_coverage(
                questions,
                out_of_fold,
                _refits(
                    questions, inputs, recipe, tuple(tables), compute=compute, progress=progress
                ),
                levels,
                judged,
            ),
        )
        write_intervals(run_dir / INTERVALS_FILE, intervals)
    return intervals


def standing_intervals(run_dir: Path, seeds: Sequence[int]) -> IntervalsFile | None:
    """Return the intervals in a run's folder where they are of these seeds as they stand there.

    None where there are none, where the file is damaged and where it speaks of other predictions.
    BadEvidence where the run cannot be judged.
    """
    evidence, path = _collect(Path(run_dir), seeds), Path(run_dir) / INTERVALS_FILE
    try:
        found = parse_intervals(path.read_bytes(), path)
    except (OSError, BadEvidence):
        return None
    record = next(iter(evidence.seed_files.values()))
    return found if found.speaks_of(record.corpus_sha256, evidence.predictions_sha256) else None


def _collect(run_dir: Path, seeds: Sequence[int]) -> Evidence:
    evidence = collect_evidence(run_dir, seeds)
    lacking = sorted(evidence.seed_files.keys() - evidence.predictions_sha256.keys())
    if lacking:
        raise BadEvidence(
            f"no predictions of seed {', '.join(map(str, lacking))} to calibrate intervals on",
            where=str(run_dir),
            fix="files of the replaced trainer have none: train again with "
            + training_command(run_dir, lacking, force=True),
        )
    return evidence


def _clips(corpus: Corpus) -> NDArray[np.int64]:
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
    n_sources = len(questions.names)
    # A pair has one address in the randomness, beyond those of the run's folds, whoever is judged.
    place = {pair: i for i, pair in enumerate(combinations(range(n_sources), 2), start=n_sources)}

    def leaving_out(pairs: Sequence[tuple[int, int]]) -> Iterable[NDArray[np.float64]]:
        folds = []
        for pair in pairs:
            unseen = np.isin(questions.source, pair)
            folds.append(
                Fold(
                    index=place[pair],
                    held_out=" and ".join(questions.names[code] for code in pair),
                    train=np.flatnonzero(~unseen).astype(np.int32),
                    test=np.flatnonzero(unseen).astype(np.int32),
                )
            )
        predicted, _ = fit_and_predict(
            inputs, folds, recipe, seeds, compute=compute, progress=progress
        )
        return (np.stack(of_seeds) for of_seeds in zip(*predicted, strict=True))

    return leaving_out
