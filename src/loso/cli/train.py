"""Commands that train: `train`, `run`, `demo`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from loso.cli.console import (
    hint,
    print_json,
    print_line,
    print_table,
    show_progress,
    warn_all,
)
from loso.cli.options import (
    DEFAULT_SEEDS_TEXT,
    CorpusRootOption,
    JsonOption,
    KeyOption,
    SchedulerOption,
    SeedsOption,
    computing,
    parse_seeds,
    require_given,
)
from loso.cli.settings import with_settings
from loso.recipe import (
    DEFAULT_CORPUS,
    DEFAULT_OUT_DIR,
    DEFAULT_SEEDS,
    Compute,
    GateThresholds,
    Recipe,
    Tracking,
    TrainingNeeds,
)

if TYPE_CHECKING:
    from loso.pipeline import Outcome
    from loso.run_folder import TrainedRun

__all__ = ["demo", "run", "train"]

CorpusOption = Annotated[Path, typer.Option("--corpus", help="Corpus to train on.")]
OutDirOption = Annotated[Path, typer.Option("--out-dir", help="Folder of the run.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Train seeds again that are there.")]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude-source", metavar="SRC", help="Leave a source out; repeatable."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="One epoch, to try the machinery; no gate takes it.")
]

_KEPT: Final = "what was finished is kept, the same command goes on from it"


@with_settings
def train(
    recipe: Recipe,
    needs: TrainingNeeds,
    compute: Compute,
    tracking: Tracking,
    corpus: CorpusOption = DEFAULT_CORPUS,
    out_dir: OutDirOption = DEFAULT_OUT_DIR,
    seeds: SeedsOption = DEFAULT_SEEDS_TEXT,
    exclude_source: ExcludeOption = None,
    key: KeyOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    scheduler: SchedulerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train every seed with each source held out once; write scores and predictions.

    Example: loso train --corpus corpus.jsonl --out-dir runs/first --seeds 0,1,2
    """
    chosen = parse_seeds(seeds)
    require_given(corpus)
    from loso.pipeline import open_for_training
    from loso.run_folder import train_into
    from loso.tracking.store import log_run, open_store

    excluded, keys = exclude_source or (), key or ()
    opened = open_for_training(corpus, needs, recipe, exclude_sources=excluded, key=keys)
    store = open_store(tracking)
    with (
        computing(compute, scheduler) as trainer,
        show_progress("training", kept=_KEPT) as progress,
    ):
        trained = train_into(
            out_dir,
            opened,
            recipe,
            chosen,
            exclude_sources=excluded,
            dry_run=dry_run,
            force=force,
            compute=trainer,
            command=sys.argv,
            progress=progress,
        )
    logged = log_run(store, out_dir, chosen)
    warn_all((*opened.warnings, *trained.warnings, *logged.warnings))
    _hint_logged(logged.run_id)
    if as_json:
        print_json(_trained_record(out_dir, trained))
    else:
        _print_trained(trained)
        if not dry_run and len(chosen) > 1:  # one seed cannot be judged
            words = ["loso", "validate", str(out_dir), "--corpus", str(corpus)]
            words += [] if chosen == DEFAULT_SEEDS else ["--seeds", seeds]
            words += [word for column in keys for word in ("--key", column)]
            hint(f"next: {shlex.join(words)}")


@with_settings
def run(
    recipe: Recipe,
    needs: TrainingNeeds,
    thresholds: GateThresholds,
    compute: Compute,
    tracking: Tracking,
    corpus: CorpusOption = DEFAULT_CORPUS,
    out_dir: OutDirOption = DEFAULT_OUT_DIR,
    seeds: SeedsOption = DEFAULT_SEEDS_TEXT,
    exclude_source: ExcludeOption = None,
    key: KeyOption = None,
    corpus_root: CorpusRootOption = None,
    force: ForceOption = False,
    scheduler: SchedulerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the corpus, train, calibrate, validate: the operator's one command.

    Exit 0 on PROMOTE, 1 on HOLD.

    Example: loso run --corpus corpus.jsonl --out-dir runs/first
    """
    chosen = parse_seeds(seeds)
    require_given(corpus)
    from loso import pipeline

    with computing(compute, scheduler) as trainer, show_progress("run", kept=_KEPT) as progress:
        outcome = pipeline.run(
            corpus,
            out_dir,
            recipe,
            chosen,
            thresholds=thresholds,
            needs=needs,
            exclude_sources=exclude_source or (),
            key=key or (),
            corpus_root=corpus_root,
            force=force,
            compute=trainer,
            tracking=tracking,
            command=sys.argv,
            progress=progress,
        )
    _print_outcome(outcome, as_json=as_json)


@with_settings
def demo(
    compute: Compute,
    out_dir: OutDirOption = Path("runs/demo"),
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take the corpus inside this package the whole way: train, calibrate, verdict.

    Example: loso demo
    """
    from loso import pipeline
    from loso.data import demo_corpus_path

    hint("Demo corpus: ten short clips, five encoders, four qualities, VMAF of every frame.")
    hint("Each clip is held out once: five networks learn from the other nine and predict it.")
    with show_progress("run", kept=_KEPT) as progress:
        outcome = pipeline.run(
            demo_corpus_path(),
            out_dir,
            force=force,
            compute=compute,
            command=sys.argv,
            progress=progress,
        )
    if not as_json:
        _print_in_words(outcome)
    _print_outcome(outcome, as_json=as_json)


def _print_in_words(outcome: Outcome) -> None:
    gate = outcome.verdict.gate
    error = next(a.value for a in gate.advisory if a.check == "mean_rmse")
    text = (
        "In words: on clips they have never seen, the networks follow VMAF to within "
        f"{error:.1f} points (RMSE)\nat a correlation of {gate.mean_plcc:.4f}; to ship takes "
        f"{gate.mean_plcc_threshold:g}. VMAF is made of the very features they\nread, so this "
        "shows that the machinery works. Your own clips: loso corpus build --help\n"
    )
    for line in text.split("\n"):
        print_line(line)


def _trained_record(out_dir: Path, trained: TrainedRun) -> dict[str, Any]:
    return {
        "out_dir": str(out_dir),
        "trained_seeds": list(trained.trained),
        "kept_seeds": list(trained.kept),
        "wall_time_s": trained.wall_time_s,
        "mean_plcc": {str(s.seed): s.mean_plcc for s in trained.seed_files},
    }


def _print_trained(trained: TrainedRun) -> None:
    seed_files = trained.seed_files
    sources = [fold.held_out for fold in seed_files[0].folds]
    rows = [
        (source, *(_plcc(file.folds[i].plcc) for file in seed_files))
        for i, source in enumerate(sources)
    ]
    rows.append(("mean", *(_plcc(file.mean_plcc) for file in seed_files)))
    titles = ("PLCC of held-out source", *(f"seed {file.seed}" for file in seed_files))
    print_table(titles, rows, align="<".ljust(len(titles), ">"))
    how = f"trained {len(trained.trained)}, kept {len(trained.kept)} of the seeds"
    print_line(f"{how} in {trained.wall_time_s:.1f} s")


def _hint_logged(mlflow_run: str | None) -> None:
    if mlflow_run is not None:
        hint(f"logged to MLflow: run {mlflow_run}")


def _plcc(value: float | None) -> str:
    return "undef." if value is None else f"{value:.4f}"


def _print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    from loso.cli.judge import print_verdict

    warn_all(outcome.warnings)
    if outcome.report is not None:
        hint(f"wrote {outcome.report}")
    _hint_logged(outcome.mlflow_run)
    if as_json:
        print_verdict(outcome.verdict, outcome.verdict_path, as_json=True)
        return
    corpus = outcome.corpus
    print_line(
        f"{corpus.path.name}: {len(corpus)} rows, {len(corpus.sources)} sources, "
        f"{len(corpus.encoders)} encoders"
    )
    _print_trained(outcome.trained)
    print_line()
    print_verdict(outcome.verdict, outcome.verdict_path, as_json=False)
    words = ["loso", "export", str(outcome.verdict_path.parent), "--corpus", str(corpus.path)]
    hint(f"next: {shlex.join([*words, '--out-dir', 'model'])}")
