"""Options that several commands share: one name, one help, one default each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from loso.errors import BadSettings
from loso.recipe import DEFAULT_SEEDS, check_seeds

__all__ = [
    "DEFAULT_SEEDS_TEXT",
    "CorpusRootOption",
    "JsonOption",
    "KeyOption",
    "SeedsOption",
    "parse_seeds",
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
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


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
