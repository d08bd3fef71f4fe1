"""`loso corpus check`: what is in a corpus, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli.console import answer, print_json, print_line, print_table
from loso.cli.options import JsonOption, KeyOption
from loso.cli.settings import with_settings
from loso.recipe import TrainingNeeds

if TYPE_CHECKING:
    from loso.corpus.check import CorpusSummary

__all__ = ["check"]


@with_settings
def check(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A .jsonl, .jsonl.gz or .parquet file.")
    ],
    needs: TrainingNeeds,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is in a corpus, and what is wrong with it.

    Exit 0 where it can be trained on, 1 where it is too small, 2 where it cannot be used.

    Example: loso corpus check corpus.jsonl
    """
    from loso.corpus.check import describe_corpus
    from loso.corpus.load import load_corpus

    summary = describe_corpus(load_corpus(corpus, key=key or ()), needs)
    if as_json:
        print_json(summary.to_dict())
    else:
        _print_summary(summary)
    if not summary.trainable:
        raise typer.Exit(1)


def _print_summary(summary: CorpusSummary) -> None:
    rows, frames, vmaf = summary.rows_per_source, summary.frames_per_clip, summary.vmaf
    print_line(
        f"{summary.path}: {summary.rows} rows, {summary.clips} clips, "
        f"{len(summary.sources)} sources"
    )
    of_vmaf = f"{vmaf.min:.4g}..{vmaf.max:.4g}, median {vmaf.median:.4g}"
    print_table(
        (),
        [
            ("sha256", summary.sha256),
            ("rows a source", f"{rows.min:g}..{rows.max:g}, median {rows.median:g}"),
            ("frames a clip", f"{frames.min:g}..{frames.max:g}, median {frames.median:g}"),
            ("vmaf", f"{of_vmaf}, {summary.saturated_share:.1%} at 100"),
        ],
    )
    print_line()
    print_table(
        ("encoder", "rows", "presets", "cq"),
        [
            (e.encoder, str(e.rows), " ".join(e.presets) or "-", _brief(e.cq))
            for e in summary.encoders
        ],
        align="<><<",
    )
    print_line()
    print_table(
        ("source", "rows", "clips", "encoders", "mean vmaf"),
        [
            (s.source, str(s.rows), str(s.clips), str(len(s.encoders)), f"{s.vmaf_mean:.2f}")
            for s in summary.sources
        ],
        align="<>>>>",
    )
    print_line()
    for note in summary.notes:
        print_line("note: ", note)
    if summary.shortfall:
        print_line(answer("not trainable", good=False), ": ", summary.shortfall)
    else:
        print_line(answer("can be trained on", good=True))


def _brief(numbers: tuple[float, ...], most: int = 8) -> str:
    if len(numbers) > most:
        return f"{numbers[0]:g}..{numbers[-1]:g}, {len(numbers)} values"
    return " ".join(f"{number:g}" for number in numbers)
