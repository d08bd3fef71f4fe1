"""The command line: parse, call the library once, print."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any, Final

import typer

from loso.cli.lazy import CONTEXT, Group, Verb

__all__ = ["app", "main"]

_VERBS: Final = {
    "demo": (
        "train:demo",
        "Take the corpus inside this package the whole way: train, calibrate, verdict.",
    ),
    "doctor": (
        "doctor:doctor",
        "Say what works on this machine: ffmpeg, every encoder, the training engine, GPUs.",
    ),
    "corpus": ("corpus:app", "Corpora of measured frames: build, import, join, merge, check."),
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
    "sweep": (
        "sweep:sweep",
        "Compare a grid of recipes, each source judged by the one that the other sources choose.",
    ),
    "gate": (
        "judge:gate",
        "Hold the scores in a run's seed files against the limits: exit 0 pass, 1 fail.",
    ),
    "validate": (
        "judge:validate",
        "Recompute a run's scores from its predictions, then write PROMOTE.json or HOLD.json.",
    ),
    "report": (
        "report:report",
        "Draw a run's records as one HTML file that opens offline; or compare two runs.",
    ),
    "predict": (
        "predict:predict",
        "Score frames and clips, each with its interval, from measured rows or from two videos.",
    ),
    "evaluate": (
        "evaluate:evaluate",
        "Hold a model against a corpus that it has not seen: agreement, coverage, drift of inputs.",
    ),
    "recommend": (
        "recommend:recommend",
        "Find the cheapest quality setting with which a clip meets a target.",
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


_PANELS: Final = {
    "Corpus": ("doctor", "corpus"),
    "Train and judge": ("demo", "run", "train", "calibrate", "ablate", "sweep", "gate", "validate"),
    "Ship and use": ("export", "registry", "verify", "predict", "evaluate", "recommend"),
    "Look": ("report",),
}
"""The verbs in the order of the pipeline, under the headings of the help."""


class _Verbs(Group):
    """The verbs, each by its name and line until it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for panel, names in _PANELS.items():
            for name in names:
                home, text = _VERBS[name]
                self.add_command(Verb(name, home, text, panel=panel))


app = typer.Typer(
    name="loso",
    cls=_Verbs,
    help="Train small video-quality regressors, and judge them on sources they have never seen.",
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
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
    """Run the command line and end the process with its exit code."""
    # A polite kill cleans up as Ctrl-C does: children, temporary folders, half-written files.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from loso.cli.endings import call

    sys.exit(call(app))


if __name__ == "__main__":
    main()
