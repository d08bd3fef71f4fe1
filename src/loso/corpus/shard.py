"""A corpus that is to become a part of another: its rows, the lines they stand in, its places."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from loso.corpus.jsonl import line_of, show
from loso.corpus.load import parse_rows, read_stored
from loso.corpus.order import columns_in_order
from loso.errors import BadCorpus
from loso.schema import IDENTITY

__all__ = ["Shard", "read_shard", "refuse_other_columns"]

_SPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_NOT_EVERYWHERE: Final = frozenset({"quality_setting"})
"""Columns that a build gives to the rows of some encoders alone."""

_SLICE: Final = 2**16
"""Rows that are made JSON at a time: their texts take several times the room of their numbers."""

_SMALL: Final = (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32)


@dataclass(frozen=True, eq=False)
class Shard:
    """One file of rows. `rows` are typed as a corpus's are; `text` is the JSON they stand in.

    `hashes` are the sha256 of the file as stored and, where it is packed, of what is inside.
    """

    path: Path
    hashes: tuple[str, ...]
    stored_bytes: int
    rows: pl.DataFrame
    text: bytes | None

    def place(self, row: int) -> str:
        """Return where a row stands, for a refusal."""
        at = f"row {row + 1}" if self.text is None else f"line {line_of(row, self.text)}"
        return f"{self.path} {at}"

    def lines(self) -> Sequence[bytes]:
        """Return the JSON of every row: as it stands in the file, or as a build would write it."""
        if self.text is not None:
            return _Lines(self.text, self.rows.height)
        columns = columns_in_order(self.rows.columns)
        for name in columns:
            self._refuse_what_json_lacks(self.rows[name])
        parts = self.rows.select(columns).iter_slices(_SLICE)
        return [line.encode() for part in parts for line in _json_lines(part)]

    def _refuse_what_json_lacks(self, column: pl.Series) -> None:
        for at, value in enumerate(_strange_values(column)):
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise BadCorpus(
                    f"{column.name} cannot be written as JSON ({error})",
                    where=self.place(at),
                    found=show(value),
                    fix="drop the column, or write the new corpus as Parquet",
                ) from None


class _Lines(Sequence[bytes]):
    """The filled lines of a text: cut out of it when they are asked for, as all would double it."""

    def __init__(self, text: bytes, rows: int) -> None:
        self._text = text
        first = len(_BOM) if text.startswith(_BOM) else 0
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
        if not text.endswith(b"\n"):
            ends = np.append(ends, len(text))
        starts = np.insert(ends[:-1] + 1, 0, first)
        if len(ends) > rows:  # some are blank
            spans = zip(starts.tolist(), ends.tolist(), strict=True)
            filled = np.fromiter((bool(text[a:b].strip(_SPACE)) for a, b in spans), np.bool_)
            starts, ends = starts[filled], ends[filled]
        self._starts, self._ends = starts.tolist(), ends.tolist()

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, row: Any) -> Any:
        return self._text[self._starts[row] : self._ends[row]].strip(_SPACE)


def read_shard(path: Path, *, key: Sequence[str] = ()) -> Shard:
    """Return the shard at `path`; BadCorpus where it could not be trained on as it stands."""
    content = read_stored(path)
    rows, text = parse_rows(content, path, key=key)
    stored = (content,) if text is None or text is content else (content, text)
    return Shard(
        path=path,
        hashes=tuple(hashlib.sha256(each).hexdigest() for each in stored),
        stored_bytes=len(content),
        rows=rows.select(_plain(column) for column in rows),
        text=text,
    )


def refuse_other_columns(shards: Sequence[Shard]) -> None:
    """Refuse, as BadCorpus, shards whose columns or their types are not those of the first."""
    first, *others = shards
    for shard in others:
        _refuse_lacking(first, shard)
    since: dict[str, tuple[str, Shard]] = {}
    for shard, name, kind in _kinds(shards):
        expected, there = since.setdefault(name, (kind, shard))
        if kind != expected:
            raise BadCorpus(
                f"{name} has another type than in {there.path}",
                where=str(shard.path),
                expected=expected,
                found=kind,
                fix="write one type in all shards",
            )


def _refuse_lacking(first: Shard, shard: Shard) -> None:
    lacking, more = (
        columns_in_order([*(set(one) - set(other) - _NOT_EVERYWHERE)])
        for one, other in (
            (first.rows.columns, shard.rows.columns),
            (shard.rows.columns, first.rows.columns),
        )
    )
    if not lacking and not more:
        return
    naming = [name for name in (*lacking, *more) if name in IDENTITY]
    raise BadCorpus(
        f"its columns are not those of {first.path}",
        where=str(shard.path),
        found=", ".join(
            [*(f"no {name}" for name in lacking), *(f"{name} beside them" for name in more)]
        ),
        fix=f"{naming[0]} names a row, so all shards need it, or none"
        if naming
        else "add them with loso corpus join, or drop them",
    )


def _kinds(shards: Sequence[Shard]) -> Iterator[tuple[Shard, str, str]]:
    for shard in shards:
        for name in columns_in_order(shard.rows.columns):
            if shard.rows[name].dtype != pl.Null:
                yield shard, name, _kind(shard.rows[name].dtype)


def _kind(kind: pl.DataType) -> str:
    """Return what a type is called, the same for all that can be put into one column."""
    if kind == pl.String:
        return "text"
    if kind == pl.Boolean:
        return "true or false"
    return "a number" if kind.is_integer() or kind.is_float() else str(kind)


def _plain(column: pl.Series) -> pl.Series:
    """Return a column of the type that JSON would give it, where it has such a one."""
    kind = column.dtype
    if isinstance(kind, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if kind in _SMALL:
        return column.cast(pl.Int64)
    if kind == pl.Float32:
        return column.cast(pl.Float64)
    return column


def _strange_values(column: pl.Series) -> list[Any]:
    """Return the values of a column where JSON may lack one of them, else none."""
    kind = column.dtype
    if kind.is_float():
        is_json = bool(column.is_finite().all())
    else:
        is_json = kind.is_integer() or kind in {pl.String, pl.Boolean, pl.Null}
    return [] if is_json else column.to_list()


def _json_lines(rows: pl.DataFrame) -> pl.Series:
    """Return each row as Python's json would write it; what is null is left out."""
    texts = pl.DataFrame([_json_texts(column) for column in rows])
    pairs = [pl.concat_str(pl.lit(json.dumps(name) + ": "), name) for name in texts.columns]
    inside = pl.concat_str(pairs, separator=", ", ignore_nulls=True)
    return texts.select(pl.concat_str(pl.lit("{"), inside, pl.lit("}"))).to_series()


def _json_texts(column: pl.Series) -> pl.Series:
    kind = column.dtype
    if kind.is_integer() or kind in {pl.Boolean, pl.Null}:
        return column.cast(pl.String)
    if kind == pl.String:
        values = column.drop_nulls().unique()
        told = [json.dumps(value) for value in values]
        return column.replace_strict(values, told, default=None, return_dtype=pl.String)
    tell: Callable[[Any], str] = float.__repr__ if kind.is_float() else json.dumps
    if column.name == "cq":
        tell = _tell_quality
    texts = [None if value is None else tell(value) for value in column.to_list()]
    return pl.Series(column.name, texts, pl.String)


def _tell_quality(cq: float) -> str:
    """Return a quality as a build writes it: whole where it is."""
    return str(int(cq)) if cq.is_integer() else repr(cq)
