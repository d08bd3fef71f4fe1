"""Options that several commands share: one name, one help, one default each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from loso.errors import BadCorpus, BadSettings
from loso.recipe import DEFAULT_CORPUS, DEFAULT_SEEDS, Compute, check_seeds

if TYPE_CHECKING:
    from loso.executors import Cluster

__all__ = [
    "DEFAULT_SEEDS_TEXT",
    "CorpusRootOption",
    "JsonOption",
    "KeyOption",
    "ModelOption",
    "SchedulerOption",
    "SeedsOption",
    "StemOption",
    "cluster_at",
    "computing",
    "one_of",
    "parse_seeds",
    "presets",
    "require_given",
]

DEFAULT_SEEDS_TEXT: Final = ",".join(map(str, DEFAULT_SEEDS))

SeedsOption = Annotated[
    str, typer.Option("--seeds", metavar="N,N,...", help="Seeds of the ensemble's members.")
]
CorpusRootOption = Annotated[
    Path | None,
    typer.Option(
        "--corpus-root",
        metavar="DIR",
        help="Folder of the source clips; the verdict records its list of .yuv files.",
    ),
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="COL", help="Column that tells rows apart; repeatable."),
]
ModelOption = Annotated[
    Path, typer.Option("--model", metavar="DIR", help="A model folder.", show_default=False)
]
StemOption = Annotated[
    str | None,
    typer.Option("--name", metavar="STEM", help="Which model, where several share the folder."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="tcp://HOST:PORT",
        help="Dask scheduler whose workers do the work; this machine alone unless given.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def one_of(home: str) -> Callable[[str], list[str]]:
    """Return what completes a value with names; `home` is where they stand, `module:name`.

    >>> one_of("loso.recipe:RECIPES")("clip")
    ['clip-mos']
    """

    def complete(incomplete: str) -> list[str]:
        module, _, name = home.partition(":")
        known = getattr(import_module(module), name)
        return [one for one in known if one.startswith(incomplete)]

    return complete


def presets(context: typer.Context, incomplete: str) -> list[str]:
    """Return the presets, beginning with `incomplete`, of the encoders that were given before."""
    from loso.video.encoders import ENCODERS

    given = context.params.get("encoder") or ()
    names = [given] if isinstance(given, str) else given
    known = dict.fromkeys(p for name in names if name in ENCODERS for p in ENCODERS[name].presets)
    return [preset for preset in known if preset.startswith(incomplete)]


def require_given(corpus: Path) -> None:
    """Refuse the usual corpus where it is not there: nobody has asked for it by name."""
    if corpus == DEFAULT_CORPUS and not corpus.exists():
        raise BadCorpus(
            "no corpus was given, and the usual one is not there",
            where=str(corpus),
            fix="give --corpus FILE: loso corpus build makes one, loso demo brings its own",
        )


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds in a comma-separated list, in its order; BadSettings on anything else.

    >>> parse_seeds("0, 2,1")
    (0, 2, 1)
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,10}", word) for word in words):
        raise BadSettings(
            "--seeds takes whole numbers, separated by commas",
            expected="such as 0,1,2,3,4",
            found=repr(text),
        )
    return check_seeds(map(int, words))


@contextmanager
def cluster_at(scheduler: str | None) -> Iterator[Cluster | None]:
    """Yield the cluster of a scheduler, None where none was given."""
    if scheduler is None:
        yield None
        return
    from loso.executors import connect

    with connect(scheduler) as cluster:
        yield cluster


@contextmanager
def computing(compute: Compute, scheduler: str | None) -> Iterator[Compute]:
    """Yield what trains: this machine, or the workers of a scheduler."""
    with cluster_at(scheduler) as cluster:
        if cluster is not None:
            from loso.engine.shards import on_cluster

            compute = on_cluster(compute, cluster)
        yield compute
