"""The operator's one command, from a corpus to a verdict and its report; all steps logged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl

from loso.ablation import ablate_run, standing_baselines
from loso.baselines import BaselinesFile
from loso.calibration import calibrate_run, standing_intervals
from loso.corpus.load import Corpus, load_corpus, require_trainable
from loso.corpus.twins import twin_warnings
from loso.corpus.view import view
from loso.engine import choose
from loso.errors import LosoError
from loso.files import make_folder
from loso.intervals import LEAST_SOURCES, IntervalsFile, level_key
from loso.journal import LOG, journal
from loso.progress import Progress, of_stage, silent
from loso.recipe import (
    DEFAULT_CORPUS,
    DEFAULT_OUT_DIR,
    DEFAULT_SEEDS,
    Compute,
    GateThresholds,
    Recipe,
    Tracking,
    TrainingNeeds,
    check_seeds,
    is_mapped,
)
from loso.run_folder import TrainedRun, train_into
from loso.tracking.store import log_run, open_store
from loso.verdict import Verdict, validate_run

__all__ = ["Outcome", "open_for_training", "run"]


_STAGES: Final = ("training", "calibrating", "baselines", "verdict", "report")


@dataclass(frozen=True)
class Outcome:
    """What a run ends with: its corpus, its trained seeds, the verdict and where it stands.

    `intervals` is None where the sources are too few for any. `baselines` holds networks with fewer
    inputs only where the target is not VMAF. `report` is None where it could not be written, and a
    warning says why: a verdict does not hang on its picture. `mlflow_run` is the id of the MLflow
    run that tells of it, None where there is none.
    """

    corpus: Corpus
    trained: TrainedRun
    verdict: Verdict
    verdict_path: Path
    intervals: IntervalsFile | None
    baselines: BaselinesFile
    report: Path | None
    mlflow_run: str | None
    warnings: tuple[str, ...]


def run(
    corpus_path: Path = DEFAULT_CORPUS,
    out_dir: Path = DEFAULT_OUT_DIR,
    recipe: Recipe | None = None,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    *,
    thresholds: GateThresholds | None = None,
    needs: TrainingNeeds | None = None,
    exclude_sources: Sequence[str] = (),
    key: Sequence[str] = (),
    corpus_root: Path | None = None,
    force: bool = False,
    compute: Compute | None = None,
    tracking: Tracking | None = None,
    command: Sequence[str] = (),
    progress: Progress = silent,
) -> Outcome:
    """Return the verdict on a corpus, with everything behind it written to `out_dir`.

    Checks the corpus, trains the seeds that are not there yet, calibrates intervals and computes
    baselines unless those of the very same predictions stand there, validates, draws the report. A
    log of the steps goes to `out_dir/logs`. What cannot be used is refused before anything is
    written. The finished run is logged to MLflow where `tracking` names a store.
    """
    corpus = open_for_training(corpus_path, needs, recipe, exclude_sources=exclude_sources, key=key)
    from loso.report.write import write_report

    compute, out_dir = compute or Compute(), Path(out_dir)
    seeds = check_seeds(seeds, least=2)  # the gate compares seeds with each other
    choose(compute.engine, compute.device)
    store = open_store(tracking)  # one that does not answer is found out now, not in hours
    with _log_file(out_dir / "logs"):
        LOG.info("command %s", " ".join(command))
        LOG.info(
            "corpus %s sha256 %s: %d rows, %d sources",
            corpus.path,
            corpus.sha256,
            len(corpus),
            len(corpus.sources),
        )
        trained = train_into(
            out_dir,
            corpus,
            recipe,
            seeds,
            exclude_sources=exclude_sources,
            force=force,
            compute=compute,
            command=command,
            progress=_stage("training", progress),
        )
        for seed_file in trained.seed_files:
            how = "kept" if seed_file.seed in trained.kept else "trained"
            LOG.info("seed %d %s: mean PLCC %s", seed_file.seed, how, seed_file.mean_plcc)
        warnings = (*corpus.warnings, *trained.warnings)
        for warning in warnings:
            LOG.warning("%s", warning)
        sources = len(trained.seed_files[0].folds)
        intervals = None
        if sources < LEAST_SOURCES:
            few = f"no intervals: {sources} sources are too few, they take {LEAST_SOURCES}"
            LOG.warning("%s", few)
            warnings = (*warnings, few)
        else:
            intervals = _calibrate(out_dir, corpus, seeds, compute, progress)
        networks = is_mapped((recipe or Recipe()).target)
        baselines = _ablate(
            out_dir, corpus, seeds, networks=networks, compute=compute, progress=progress
        )
        _stage("verdict", progress)(0, 1)
        verdict, path = validate_run(
            out_dir,
            seeds,
            thresholds or GateThresholds(),
            corpus_root=corpus_root,
            corpus=corpus,
        )
        LOG.info("verdict %s: %s", verdict.verdict, verdict.recommendation)
        _stage("report", progress)(0, 1)
        try:
            report = write_report(out_dir, corpus=corpus)
        except LosoError as refusal:
            report = None
            LOG.warning("no report: %s", refusal)
            warnings = (*warnings, f"no report: {refusal}")
        logged = log_run(store, out_dir, seeds, report=report)
        for warning in logged.warnings:
            LOG.warning("%s", warning)
        warnings = (*warnings, *logged.warnings)
    return Outcome(
        corpus, trained, verdict, path, intervals, baselines, report, logged.run_id, warnings
    )


def _stage(name: str, progress: Progress) -> Progress:
    """Return what reports to `progress` of one stage, with its place among all."""
    return of_stage(f"stage {_STAGES.index(name) + 1} of {len(_STAGES)}: {name}", progress)


def _calibrate(
    out_dir: Path, corpus: Corpus, seeds: Sequence[int], compute: Compute, progress: Progress
) -> IntervalsFile:
    """Return the intervals that stand in a run's folder, or new ones, and log which it was."""
    report = _stage("calibrating", progress)
    found = standing_intervals(out_dir, seeds)
    intervals = found or calibrate_run(out_dir, corpus, seeds, compute=compute, progress=report)
    measured = intervals.coverage.by_pool[intervals.unit].hierarchical
    LOG.info(
        "intervals %s: level %s, measured coverage of %ss %s",
        "kept" if found else "calibrated",
        level_key(intervals.default_level),
        intervals.unit,
        {key: of_level.mean for key, of_level in measured.items()},
    )
    return intervals


def _ablate(
    out_dir: Path,
    corpus: Corpus,
    seeds: Sequence[int],
    *,
    networks: bool,
    compute: Compute,
    progress: Progress,
) -> BaselinesFile:
    """Return the baselines that stand in a run's folder, or new ones, and log which it was."""
    report = _stage("baselines", progress)
    found = standing_baselines(out_dir, seeds)
    baselines = found or ablate_run(
        out_dir, corpus, seeds, networks=networks, compute=compute, progress=report
    )
    gains = baselines.gains[baselines.unit]
    LOG.info(
        "baselines %s: RMSE gain of the model %s",
        "kept" if found else "computed",
        {name: gain.rmse_gain for name, gain in gains.items()},
    )
    return baselines


def open_for_training(
    path: Path,
    needs: TrainingNeeds | None = None,
    recipe: Recipe | None = None,
    *,
    exclude_sources: Sequence[str] = (),
    key: Sequence[str] = (),
) -> Corpus:
    """Return the corpus in `path`; BadCorpus where what is not excluded is too small to train on.

    `key` names columns that tell rows apart beside those that always do. Sources that look like
    one content are a warning of the corpus, unless the recipe groups rows by another column.
    """
    corpus, recipe = load_corpus(path, key=key), recipe or Recipe()
    require_trainable(view(corpus, recipe, exclude_sources), needs or TrainingNeeds())
    if recipe.inputs.group_by != "src":
        return corpus
    twins = twin_warnings(corpus.rows.filter(~pl.col("src").is_in(list(exclude_sources))))
    return replace(corpus, warnings=(*corpus.warnings, *twins))


@contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Send the log of the block to a file of its own in `folder`."""
    make_folder(folder)
    with journal(folder / f"run_{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}.log"):
        yield
