"""`loso corpus import`: logs of libvmaf that exist already become a corpus."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loso.cli.console import print_json, show_progress, warn_all
from loso.cli.options import JsonOption
from loso.errors import BadSettings

if TYPE_CHECKING:
    from loso.corpus.from_logs import ImportReport

__all__ = ["import_"]


def import_(
    logs: Annotated[
        list[Path], typer.Argument(metavar="LOG...", help="libvmaf's logs: JSON, CSV, XML, .gz.")
    ],
    out: Annotated[Path, typer.Option(help="The corpus, .jsonl or .jsonl.gz.")],
    name_pattern: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="How the logs are named: '{src}_{encoder}_crf{cq}', no ending."
        ),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COL=VALUE", help="A column of every row; repeat it."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Table of scores, .csv, .tsv or .parquet, with a column mos."),
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(metavar="COL,...", help="Columns that name a clip in it; clip unless given."),
    ] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="LOW..HIGH", help="Range of mos; refuse what is outside.")
    ] = None,
    allow_unjoined: Annotated[
        bool, typer.Option("--allow-unjoined", help="Leave out logs and scores without a partner.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn libvmaf logs that exist already into a corpus, joined with a table of scores.

    What does not fit the pattern, or joins on one side only, is listed and refused.
    """
    from loso.corpus.from_logs import ImportSettings, import_logs
    from loso.corpus.join import read_scale
    from loso.corpus.names import NamePattern, read_setting

    if scores is None and (join or scale or allow_unjoined):
        raise BadSettings(
            "--join, --scale and --allow-unjoined are about scores, and none are given",
            fix="give --scores, or leave these out",
        )
    given = [read_setting(text) for text in set_ or []]
    if len(dict(given)) < len(given):
        raise BadSettings("a column is given twice", where="--set", found=", ".join(set_ or []))
    settings = ImportSettings(
        pattern=NamePattern.parse(name_pattern),
        given=dict(given),
        scores=scores,
        join=tuple(name.strip() for name in (join or "clip").split(",")),
        scale=read_scale(scale) if scale else None,
        allow_unjoined=allow_unjoined,
    )
    with show_progress("import") as progress:
        report = import_logs(
            logs, settings, out=out, command=["loso", *sys.argv[1:]], progress=progress
        )
    warn_all(report.warnings)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report)


def _print_report(report: ImportReport) -> None:
    from loso.corpus.names import listed

    lines = [
        ("logs", str(report.logs)),
        ("rows", str(report.rows)),
        ("sources", f"{len(report.sources)}: {listed(report.sources)}"),
        ("encoders", f"{len(report.encoders)}: {listed(report.encoders)}"),
        *(("renamed", f"{name} (logs: {count})") for name, count in report.aliases.items()),
        ("libvmaf", ", ".join(report.libvmaf)),
    ]
    if report.scored is not None:
        lines.append(("joined", f"{report.scored} logs with their scores"))
        for title, names in (
            ("logs without a score", report.logs_without_score),
            ("scores without a log", report.scores_without_log),
        ):
            lines.append((title, f"{len(names)}: {listed(names)}" if names else "0"))
    typer.echo(f"{report.corpus}: {report.rows} rows from {report.logs} logs\n")
    width = max(len(title) for title, _ in lines)
    for title, text in lines:
        typer.echo(f"{title.ljust(width)}  {text}")
