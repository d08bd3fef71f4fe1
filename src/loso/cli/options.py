"""Options that several commands share: one name, one help, one default each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from loso.errors import BadSettings
from loso.recipe import DEFAULT_SEEDS

__all__ = [
    "DEFAULT_SEEDS_TEXT",
    "SEED_MAX",
    "CorpusRootOption",
    "JsonOption",
    "SeedsOption",
    "parse_seeds",
]

DEFAULT_SEEDS_TEXT: Final = ",".join(map(str, DEFAULT_SEEDS))
SEED_MAX: Final = 2**32 - 1
"""The largest seed that numpy.random.seed takes, the narrowest generator a seed may reach."""

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
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds in a comma-separated list, in its order; BadSettings on anything else.

    >>> parse_seeds("0, 2,1")
    (0, 2, 1)
    """
    words = [word.strip() for word in text.split(",")]
    numbers = [int(word) for word in words if re.fullmatch("[0-9]{1,10}", word)]
    seeds = tuple(number for number in numbers if number <= SEED_MAX)
    if len(seeds) < len(words) or len(set(seeds)) < len(seeds):
        raise BadSettings(
            f"--seeds takes whole numbers in 0..{SEED_MAX}, each once, separated by commas",
            expected="as in 0,1,2,3,4",
            found=repr(text),
        )
    return seeds
