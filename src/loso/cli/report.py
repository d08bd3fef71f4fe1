"""The command that draws: `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loso.cli.console import print_json
from loso.cli.options import JsonOption, KeyOption
from loso.errors import BadSettings

__all__ = ["report"]


def report(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run.", show_default=False)
    ],
    other_dir: Annotated[
        Path | None,
        typer.Argument(
            metavar="OTHER_DIR", help="A second run, to see what changed.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write; by default RUN_DIR/report.html, or against_NAME.html for two.",
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The corpus of the run, if it is not where it was trained on."
        ),
    ] = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a run's records as one HTML file that opens offline; or compare two runs.

    Nothing is computed again: what the file shows is what the records say, with their hashes.

    Example: loso report runs/first
    """
    from loso.report.write import write_comparison, write_report

    if other_dir is None:
        path = write_report(run_dir, out, corpus=corpus, key=tuple(key or ()))
    elif corpus is None:
        path = write_comparison(run_dir, other_dir, out, key=tuple(key or ()))
    else:
        raise BadSettings("--corpus goes with one run", fix="leave it out to compare two")
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
