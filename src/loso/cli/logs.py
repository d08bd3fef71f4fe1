"""`loso corpus import`, `loso corpus join`: what was measured elsewhere goes into a corpus."""

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
from loso.errors import BadSettings

if TYPE_CHECKING:
    from loso.corpus.from_logs import ImportReport
    from loso.corpus.join import JoinReport

__all__ = ["import_", "join"]


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
        typer.Option(help="Table of scores with a column mos: CSV, TSV, JSONL or Parquet."),
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

    Example: loso corpus import logs/*.json --name-pattern {src}_{encoder}_crf{cq} --out c.jsonl
    """
    from loso.corpus.from_logs import ImportSettings, import_logs
    from loso.corpus.names import NamePattern, read_setting
    from loso.corpus.scores import read_scale

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
        join=_names("--join", join or "clip"),
        scale=read_scale(scale) if scale else None,
        allow_unjoined=allow_unjoined,
    )
    with show_progress("import", kept=NOTHING_WRITTEN) as progress:
        report = import_logs(
            logs, settings, out=out, command=["loso", *sys.argv[1:]], progress=progress
        )
    warn_all(report.warnings)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_import(report)


def join(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A .jsonl, .jsonl.gz or .parquet file.")
    ],
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="What to add: CSV, TSV, JSONL or Parquet.")
    ],
    on: Annotated[
        str, typer.Option(metavar="COL,...", help="Columns of both that name a row of the table.")
    ],
    out: Annotated[Path, typer.Option(help="The new corpus, .jsonl, .jsonl.gz or .parquet.")],
    columns: Annotated[
        str | None, typer.Option(metavar="COL,...", help="Columns to add; all unless given.")
    ] = None,
    key: KeyOption = None,
    known_encoders: Annotated[
        bool, typer.Option("--known-encoders", help="Call h264 libx264, hevc libx265, and so on.")
    ] = False,
    allow_unjoined: Annotated[
        bool, typer.Option("--allow-unjoined", help="Leave out rows of either without a partner.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add columns of a table, such as scores of clips, to every row of a corpus.

    What joins on one side only is listed and refused.

    Example: loso corpus join corpus.jsonl scores.csv --on clip --out scored.jsonl
    """
    from loso.corpus.join import JoinSettings, join_table

    settings = JoinSettings(
        on=_names("--on", on),
        columns=() if columns is None else _names("--columns", columns),
        key=tuple(key or ()),
        known_encoders=known_encoders,
        allow_unjoined=allow_unjoined,
    )
    report = join_table(corpus, table, settings, out=out, command=["loso", *sys.argv[1:]])
    warn_all(report.warnings)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_join(report)


def _names(option: str, text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise BadSettings(
            "not a list of columns",
            where=option,
            expected="names separated by commas, each once",
            found=repr(text),
        )
    return names


def _print_import(report: ImportReport) -> None:
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
    print_line(f"{report.corpus}: {report.rows} rows from {report.logs} logs")
    print_line()
    print_table((), lines)


def _print_join(report: JoinReport) -> None:
    from loso.corpus.names import listed

    lone, unused = report.corpus_without_table, report.table_without_corpus
    print_line(f"{report.corpus}: {report.rows} rows, joined with {report.joined} of the table")
    print_line()
    print_table(
        (),
        [
            ("new columns", listed(report.columns) or "none"),
            *(("renamed", f"{name} (rows: {count})") for name, count in report.aliases.items()),
            ("rows left out", f"{report.left_out}: {listed(lone)}" if lone else "0"),
            ("table rows unused", f"{len(unused)}: {listed(unused)}" if unused else "0"),
        ],
    )
