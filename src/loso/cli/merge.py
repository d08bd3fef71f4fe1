"""`loso corpus merge`: shards from several machines or sites become one corpus."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli.console import (
    NOTHING_WRITTEN,
    print_json,
    print_line,
    print_table,
    show_progress,
    warn_all,
)
from loso.cli.options import JsonOption, KeyOption

if TYPE_CHECKING:
    from loso.corpus.merge import MergeReport

__all__ = ["merge"]


def merge(
    shards: Annotated[
        list[Path],
        typer.Argument(metavar="SHARD...", help="Corpora: .jsonl, .jsonl.gz or .parquet files."),
    ],
    out: Annotated[Path, typer.Option(help="The new corpus, .jsonl, .jsonl.gz or .parquet.")],
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put corpora from several machines or sites together, each row once.

    What disagrees is refused: a row, a clip of one source, the VMAF model, the columns.

    Example: loso corpus merge siteA.jsonl siteB.jsonl --out corpus.jsonl
    """
    from loso.corpus.merge import merge_corpora

    with show_progress("merge", kept=NOTHING_WRITTEN) as progress:
        report = merge_corpora(
            shards, out=out, key=key or (), command=["loso", *sys.argv[1:]], progress=progress
        )
    warn_all(report.warnings)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_merge(report)


def _print_merge(report: MergeReport) -> None:
    print_line(
        f"{report.corpus}: {report.rows} rows of {len(report.sources)} sources from "
        f"{len(report.shards)} shard{'s' * (len(report.shards) > 1)}"
    )
    print_line()
    print_table(
        ("shard", "rows", "also elsewhere"),
        [(shard.path, str(shard.rows), str(shard.shared)) for shard in report.shards],
        align="<>>",
    )
    if report.duplicates:
        print_line()
        print_line(
            f"{report.duplicates} rows were there already, with the same values, and are kept once"
        )
