"""Who is held out: one fold for every source. Nothing is fitted here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loso.errors import BadCorpus

__all__ = ["Fold", "leave_one_source_out", "leave_two_sources_out"]

_MOST_PLACES: Final = 2**31
"""Rows times sources: each fold names all rows, in 8 GiB here. A million rows of 2,000 sources."""


@dataclass(frozen=True)
class Fold:
    """What is held out, a source or a pair: ascending rows to train on, and those never seen.

    `index` is its address in the randomness of training.
    """

    index: int
    held_out: str
    train: NDArray[np.int32]
    test: NDArray[np.int32]


def leave_one_source_out(source: Sequence[str] | NDArray[np.str_]) -> tuple[Fold, ...]:
    """Return one fold for each distinct source, in sorted order.

    `source` names the source of every row. Folds are disjoint, cover each row once as unseen, and
    never split a source. BadCorpus with fewer than two sources, or with so many that nobody could
    train a network without each.

    >>> [(f.held_out, f.train.tolist()) for f in leave_one_source_out(["b", "a", "b"])]
    [('a', [0, 2]), ('b', [1])]
    """
    names, of_row = np.unique(np.asarray(source, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        raise BadCorpus(
            "leave-one-source-out needs two sources",
            found=f"{len(names)} ({', '.join(names) or 'no rows'})",
            fix="add rows of another source",
        )
    if len(names) * len(of_row) > _MOST_PLACES:
        raise BadCorpus(
            "too many sources to hold each out",
            expected=f"at most {_MOST_PLACES // len(of_row)} of {len(of_row)} rows",
            found=f"{len(names)}",
            fix="group them with --group-by, or train on some of them",
        )
    return tuple(
        Fold(
            index=index,
            held_out=str(name),
            train=np.flatnonzero(of_row != index).astype(np.int32),
            test=np.flatnonzero(of_row == index).astype(np.int32),
        )
        for index, name in enumerate(names)
    )


def leave_two_sources_out(
    source: Sequence[str] | NDArray[np.str_], pairs: Iterable[tuple[int, int]]
) -> tuple[Fold, ...]:
    """Return one fold for each pair of sources, which are numbered in sorted order.

    A pair has one index, beyond those of the folds that lack one source, whoever asks for it and
    whatever else is asked for.

    >>> [(f.index, f.held_out) for f in leave_two_sources_out(["c", "b", "a"], [(0, 2), (1, 2)])]
    [(4, 'a and c'), (5, 'b and c')]
    """
    names, of_row = np.unique(np.asarray(source, dtype=np.str_), return_inverse=True)
    n_sources, folds = len(names), []
    for pair in pairs:
        one, other = pair  # numbered as itertools.combinations would, beyond the single sources
        place = n_sources + one * n_sources - one * (one + 1) // 2 + other - one - 1
        unseen = np.isin(of_row, pair)
        folds.append(
            Fold(
                index=place,
                held_out=" and ".join(str(names[code]) for code in pair),
                train=np.flatnonzero(~unseen).astype(np.int32),
                test=np.flatnonzero(unseen).astype(np.int32),
            )
        )
    return tuple(folds)
