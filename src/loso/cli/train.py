"""Commands that train: `train`, `run`, `demo`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loso.cli.console import hint, print_json, show_progress, warn_all
from loso.cli.options import (
    DEFAULT_SEEDS_TEXT,
    CorpusRootOption,
    JsonOption,
    KeyOption,
    SeedsOption,
    parse_seeds,
)
from loso.cli.settings import with_settings
from loso.recipe import (
    DEFAULT_CORPUS,
    DEFAULT_OUT_DIR,
    DEFAULT_SEEDS,
    Compute,
    GateThresholds,
    Recipe,
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


@with_settings
def train(
    recipe: Recipe,
    needs: TrainingNeeds,
    compute: Compute,
    corpus: CorpusOption = DEFAULT_CORPUS,
    out_dir: OutDirOption = DEFAULT_OUT_DIR,
    seeds: SeedsOption = DEFAULT_SEEDS_TEXT,
    exclude_source: ExcludeOption = None,
    key: KeyOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train every seed with each source held out once; write scores and predictions.

    Example: loso train --corpus corpus.jsonl --out-dir runs/first --seeds 0,1,2
    """
    chosen = parse_seeds(seeds)
    from loso.pipeline import open_for_training
    from loso.run_folder import train_into

    excluded, keys = exclude_source or (), key or ()
    opened = open_for_training(corpus, needs, recipe, exclude_sources=excluded, key=keys)
    with show_progress("training") as progress:
        trained = train_into(
            out_dir,
            opened,
            recipe,
            chosen,
            exclude_sources=excluded,
            dry_run=dry_run,
            force=force,
            compute=compute,
            command=sys.argv,
            progress=progress,
        )
    warn_all((*opened.warnings, *trained.warnings))
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
    corpus: CorpusOption = DEFAULT_CORPUS,
    out_dir: OutDirOption = DEFAULT_OUT_DIR,
    seeds: SeedsOption = DEFAULT_SEEDS_TEXT,
    exclude_source: ExcludeOption = None,
    key: KeyOption = None,
    corpus_root: CorpusRootOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check the corpus, train, calibrate, validate: the operator's one command.

    Exit 0 on PROMOTE, 1 on HOLD.

    Example: loso run --corpus corpus.jsonl --out-dir runs/first
    """
    chosen = parse_seeds(seeds)
    from loso import pipeline

    with show_progress("run") as progress:
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
            compute=compute,
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
    with show_progress("run") as progress:
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
    typer.echo(
        "In words: on clips they have never seen, the networks follow VMAF to within "
        f"{error:.1f} points (RMSE)\nat a correlation of {gate.mean_plcc:.4f}; to ship takes "
        f"{gate.mean_plcc_threshold:g}. VMAF is made of the very features they\nread, so this "
        "shows that the machinery works. Your own clips: loso corpus build --help\n"
    )


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
    width = max(map(len, ("held-out source", *sources)))
    names = [f"seed {s.seed}" for s in seed_files]
    typer.echo(f"{'held-out source':{width}}  {'  '.join(names)}  (PLCC)")
    for i, source in enumerate(sources):
        typer.echo(f"{source:{width}}{_aligned(names, [s.folds[i].plcc for s in seed_files])}")
    means = _aligned(names, [s.mean_plcc for s in seed_files])
    typer.echo(f"{'mean':{width}}{means}")
    how = f"trained {len(trained.trained)}, kept {len(trained.kept)} of the seeds"
    typer.echo(f"{how} in {trained.wall_time_s:.1f} s")


def _aligned(names: list[str], values: list[float | None]) -> str:
    texts = ["undef." if value is None else f"{value:.4f}" for value in values]
    return "".join(f"  {text:{len(name)}}" for name, text in zip(names, texts, strict=True))


def _print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    from loso.cli.judge import print_verdict

    warn_all(outcome.warnings)
    if as_json:
        print_verdict(outcome.verdict, outcome.verdict_path, as_json=True)
        return
    corpus = outcome.corpus
    typer.echo(
        f"{corpus.path.name}: {len(corpus)} rows, {len(corpus.sources)} sources, "
        f"{len(corpus.encoders)} encoders"
    )
    _print_trained(outcome.trained)
    typer.echo("")
    print_verdict(outcome.verdict, outcome.verdict_path, as_json=False)
    words = ["loso", "export", str(outcome.verdict_path.parent), "--corpus", str(corpus.path)]
    hint(f"next: {shlex.join([*words, '--out-dir', 'model'])}")
