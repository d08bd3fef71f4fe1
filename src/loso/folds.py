"""Who is held out: one fold for every source. Nothing is fitted here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loso.errors import BadCorpus

__all__ = ["Fold", "leave_one_source_out"]


@dataclass(frozen=True)
class Fold:
    """One source held out: ascending row numbers to train on, and those never seen."""

    index: int
    held_out: str
    train: NDArray[np.int32]
    test: NDArray[np.int32]


def leave_one_source_out(source: Sequence[str] | NDArray[np.str_]) -> tuple[Fold, ...]:
    """Return one fold for each distinct source, in sorted order.

    `source` names the source of every row. Folds are disjoint, cover each row once as unseen, and
    never split a source. BadCorpus with fewer than two sources.

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
    return tuple(
        Fold(
            index=index,
            held_out=str(name),
            train=np.flatnonzero(of_row != index).astype(np.int32),
            test=np.flatnonzero(of_row == index).astype(np.int32),
        )
        for index, name in enumerate(names)
    )
