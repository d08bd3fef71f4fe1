"""What tells a source of training again: its name, and a hash of its rows under any other name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from loso.recipe import InputSpec

__all__ = ["hash_sources", "hashed_columns"]

_DIGITS = 16
"""Of sha256: two of a million sources share them by chance once in 37 million corpora."""


def hashed_columns(spec: InputSpec, unit: str, target: str) -> tuple[str, ...]:
    """Return the numbers that a source is told by; a clip's frames are averaged, and have none."""
    frame = ("frame_index",) if unit == "frame" else ()
    return ("cq", *frame, *spec.features.columns, target)


def hash_sources(rows: pl.DataFrame, columns: Sequence[str], source: str = "src") -> dict[str, str]:
    """Return a hash of the rows of each source, by its name, sorted.

    It is over `encoder` and the numbers in `columns`, in the precision of float32, in an order of
    their own: neither the order of the rows, nor the source's name, nor other columns change it.

    >>> rows = pl.DataFrame({"src": ["a", "b"], "encoder": ["libx264"] * 2, "cq": [19, 19]})
    >>> hashes = hash_sources(rows, ["cq"])
    >>> list(hashes), hashes["a"] == hashes["b"]
    (['a', 'b'], True)
    """
    names = list(dict.fromkeys(columns))
    number = pl.col(names).cast(pl.Float32) + 0.0  # -0.0 is 0.0
    table = rows.select(pl.col(source, "encoder").cast(pl.String), number)
    hashes = {}
    for (name,), own in table.sort(pl.all()).group_by(source, maintain_order=True):
        digest = hashlib.sha256("\n".join(own["encoder"]).encode())
        digest.update(own.select(names).to_numpy().astype("<f4", order="C").tobytes())
        hashes[str(name)] = digest.hexdigest()[:_DIGITS]
    return hashes
