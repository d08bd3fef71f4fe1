"""The command line: parse, call the library once, print."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from loso.errors import LosoError

__all__ = ["app", "main"]

_VERBS: Final = {
    "demo": (
        "train:demo",
        "Take the corpus inside this package the whole way: train, calibrate, verdict.",
    ),
    "corpus": ("corpus:app", "Corpora of measured frames: build, import, join, check."),
    "train": (
        "train:train",
        "Train every seed with each source held out once; write scores and predictions.",
    ),
    "run": (
        "train:run",
        "Check the corpus, train, calibrate, validate: the operator's one command.",
    ),
    "calibrate": (
        "judge:calibrate",
        "Calibrate a run's intervals over its sources and measure their coverage by refits.",
    ),
    "ablate": (
        "ablate:ablate",
        "Hold a run against VMAF, a ridge, and its own networks with fewer inputs.",
    ),
    "gate": (
        "judge:gate",
        "Hold the scores in a run's seed files against the limits: exit 0 pass, 1 fail.",
    ),
    "validate": (
        "judge:validate",
        "Recompute a run's scores from its predictions, then write PROMOTE.json or HOLD.json.",
    ),
    "predict": (
        "predict:predict",
        "Score frames and clips, each with its interval, from measured rows or from two videos.",
    ),
    "evaluate": (
        "predict:evaluate",
        "Hold a model against a corpus that it has not seen: agreement, coverage, drift of inputs.",
    ),
    "verify": (
        "verify:verify",
        "Check the whole chain behind a model again and report all that is wrong.",
    ),
    "export": (
        "model:export",
        "Fit a promoted run's seeds on the whole corpus; write graphs, records and a card.",
    ),
    "registry": (
        "model:registry_app",
        "Which exported models are for production: list, flip, unflip.",
    ),
}
"""For every verb the module and name of what it calls, and its line in the list of verbs."""


class _Verb(TyperCommand):
    """A verb whose module loads when it is called: start-up must not grow with every verb."""

    def __init__(self, name: str, home: str, text: str) -> None:
        super().__init__(name, help=text)
        self.home = home

    def load(self) -> Any:
        """Return the real command."""
        module, name = self.home.split(":")
        found = getattr(import_module(f"loso.cli.{module}"), name)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False, context_settings=_CONTEXT)
            single.command(self.name)(found)
            found = single
        return typer.main.get_command(found)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        return self.load().make_context(*args, **extra)


class _Verbs(TyperGroup):
    """The verbs, each by its name and line until it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (home, text) in _VERBS.items():
            self.add_command(_Verb(name, home, text))


_CONTEXT: Final = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="loso",
    cls=_Verbs,
    help="Train small video-quality regressors, and judge them on sources they have never seen.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=_CONTEXT,
)


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
