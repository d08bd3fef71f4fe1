"""The command that holds a run against its baselines: `ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli.console import (
    NOTHING_WRITTEN,
    answer,
    hint,
    print_json,
    print_line,
    print_table,
    show_progress,
    warn_all,
)
from loso.cli.options import (
    DEFAULT_SEEDS_TEXT,
    JsonOption,
    KeyOption,
    SeedsOption,
    parse_seeds,
    require_given,
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
    require_given(corpus)
    from loso.ablation import ablate_run
    from loso.corpus.load import load_corpus
    from loso.run_folder import BASELINES_FILE, VERDICT_FILES

    opened = load_corpus(corpus, key=key or ())
    with show_progress("training", kept=NOTHING_WRITTEN) as progress:
        baselines = ablate_run(run_dir, opened, chosen, compute=compute, progress=progress)
    warn_all(opened.warnings)
    if as_json:
        print_json(baselines.model_dump(mode="json"))
    else:
        _print_baselines(baselines)
    hint(f"wrote {run_dir / BASELINES_FILE}")
    if any((run_dir / name).exists() for name in VERDICT_FILES):
        hint("the verdict in this folder was given before: validate again")


def _print_baselines(baselines: BaselinesFile) -> None:
    """Print a table for each unit, the best first, then what panels leave for any model to gain."""
    how = "" if baselines.mapping == "none" else ", mapped without the held-out source"
    for unit, figures in baselines.figures.items():
        print_line(f"{baselines.target} of {unit}s, {len(baselines.sources)} sources{how}")
        print_line()
        gains = baselines.gains[unit]
        rows = []
        for name, own in sorted(figures.items(), key=lambda item: item[1].rmse):
            plcc = "undef." if own.plcc is None else f"{own.plcc:.4f}"
            gain = _gain_cells(gains[name]) if name in gains else ("",) * 4
            rows.append((name.replace("_", " "), plcc, f"{own.rmse:.4g}", *gain))
        titles = ("", "PLCC", "RMSE", "gain", "bootstrap", "jackknife-t", "beats")
        print_table(titles, rows, align="<>>>")
        print_line()
    for name, reason in sorted(baselines.not_computed.items()):
        print_line(f"no {name.replace('_', ' ')}: {reason}")
    for found in baselines.panels:
        ceiling = "none" if found.plcc_ceiling is None else f"{found.plcc_ceiling:.4f}"
        agreed = "undefined" if found.plcc is None else f"{found.plcc:.4f}"
        print_line(
            f"panels {found.panels[0]} and {found.panels[1]} on {found.n_clips} clips: PLCC "
            f"{agreed}, RMSE {found.rmse:.4g}; with equal, independent noise no model of one "
            f"panel passes PLCC {ceiling} and RMSE {found.rmse_floor:.4g}"
        )


def _gain_cells(gain: Gain) -> tuple[str, str, str, str]:
    text = "yes" if gain.beats else "no"
    if not gain.jackknife_agrees:
        text += ", but not by the jackknife" if gain.beats else ", but by the jackknife"
    beats = answer(text, good=gain.beats)
    return f"{gain.rmse_gain:+.4f}", _ends_text(gain.bootstrap), _ends_text(gain.jackknife), beats


def _ends_text(ends: Ends) -> str:
    return "none" if ends.low is None else f"{ends.low:+.4f}..{ends.high:+.4f}"
