"""The command that holds a run against its baselines: `ablate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli.console import hint, print_json, show_progress, warn_all
from loso.cli.options import (
    DEFAULT_SEEDS_TEXT,
    JsonOption,
    KeyOption,
    SeedsOption,
    parse_seeds,
)
from loso.cli.settings import with_settings
from loso.recipe import DEFAULT_CORPUS, Compute

if TYPE_CHECKING:
    from loso.baselines import BaselinesFile, Ends, Gain

__all__ = ["ablate"]


@with_settings
def ablate(
    run_dir: Annotated[
        Path,
        typer.Argument(metavar="RUN_DIR", help="Folder of a training run.", show_default=False),
    ],
    compute: Compute,
    corpus: Annotated[
        Path, typer.Option("--corpus", help="Corpus that the seeds were trained on.")
    ] = DEFAULT_CORPUS,
    key: KeyOption = None,
    seeds: SeedsOption = DEFAULT_SEEDS_TEXT,
    as_json: JsonOption = False,
) -> None:
    """Hold a run against VMAF, a ridge, and its own networks with fewer inputs.

    Exit 2 where the run cannot be judged; then nothing is written.

    Example: loso ablate runs/first --corpus corpus.jsonl
    """
    chosen = parse_seeds(seeds)
    from loso.ablation import ablate_run
    from loso.corpus.load import load_corpus
    from loso.run_folder import BASELINES_FILE, VERDICT_FILES

    opened = load_corpus(corpus, key=key or ())
    with show_progress("training") as progress:
        baselines = ablate_run(run_dir, opened, chosen, compute=compute, progress=progress)
    warn_all(opened.warnings)
    if as_json:
        print_json(baselines.model_dump(mode="json"))
    else:
        typer.echo("\n".join(_lines(baselines)))
    hint(f"wrote {run_dir / BASELINES_FILE}")
    if any((run_dir / name).exists() for name in VERDICT_FILES):
        hint("the verdict in this folder was given before: validate again")


def _lines(baselines: BaselinesFile) -> Iterator[str]:
    """Yield a table for each unit, the best first, then what panels leave for any model to gain."""
    how = "" if baselines.mapping == "none" else ", mapped without the held-out source"
    for unit, figures in baselines.figures.items():
        yield f"{baselines.target} of {unit}s, {len(baselines.sources)} sources{how}"
        yield ""
        yield (f"{'':21}{'PLCC':>8}{'RMSE':>9}{'gain':>9}  {'bootstrap':20}{'jackknife-t':20}beats")
        gains = baselines.gains[unit]
        for name, own in sorted(figures.items(), key=lambda item: item[1].rmse):
            plcc = "undef." if own.plcc is None else f"{own.plcc:.4f}"
            row = f"{name.replace('_', ' '):21}{plcc:>8}{own.rmse:9.4g}"
            yield row + (_gain_text(gains[name]) if name in gains else "")
        yield ""
    for name, reason in sorted(baselines.not_computed.items()):
        yield f"no {name.replace('_', ' ')}: {reason}"
    for found in baselines.panels:
        ceiling = "none" if found.plcc_ceiling is None else f"{found.plcc_ceiling:.4f}"
        agreed = "undefined" if found.plcc is None else f"{found.plcc:.4f}"
        yield (
            f"panels {found.panels[0]} and {found.panels[1]} on {found.n_clips} clips: PLCC "
            f"{agreed}, RMSE {found.rmse:.4g}; with equal, independent noise no model of one "
            f"panel passes PLCC {ceiling} and RMSE {found.rmse_floor:.4g}"
        )


def _gain_text(gain: Gain) -> str:
    drawn, left_out = _ends_text(gain.bootstrap), _ends_text(gain.jackknife)
    answer = "yes" if gain.beats else "no"
    if not gain.jackknife_agrees:
        answer += ", but not by the jackknife" if gain.beats else ", but by the jackknife"
    return f"{gain.rmse_gain:+9.4f}  {drawn:20}{left_out:20}{answer}"


def _ends_text(ends: Ends) -> str:
    return "none" if ends.low is None else f"{ends.low:+.4f}..{ends.high:+.4f}"
