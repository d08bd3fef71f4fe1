"""The command line: parse, call the library once, print."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from loso.cli.corpus import app as corpus_app
from loso.cli.judge import gate, validate
from loso.cli.train import demo, run, train
from loso.errors import LosoError

__all__ = ["app", "main"]

app = typer.Typer(
    name="loso",
    help="Train small video-quality regressors, and judge them on sources they have never seen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(corpus_app, name="corpus")


def _print_version(wanted: bool) -> None:
    if wanted:
        from loso import __version__

        typer.echo(f"loso {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


for command in (demo, train, run, gate, validate):
    app.command()(command)


def main() -> None:
    """Run the command line; a refusal ends in one message and its exit code."""
    # A polite kill cleans up as Ctrl-C does: children, temporary folders, half-written files.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except LosoError as refusal:
        from loso.cli.console import hint, print_json

        if "--json" in sys.argv:
            print_json(refusal.to_dict())
        hint(f"loso: {refusal}")
        sys.exit(refusal.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
