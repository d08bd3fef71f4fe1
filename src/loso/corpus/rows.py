"""Which rows a corpus may hold: typed, finite, in range, each there once."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Final

import polars as pl

from loso.corpus.jsonl import show
from loso.errors import BadCorpus
from loso.schema import IDENTITY, REQUIRED_NUMBERS, REQUIRED_TEXTS, VMAF_RANGE
from loso.spelling import did_you_mean

__all__ = ["identity_of", "valid_rows"]

_REQUIRED: Final = (*REQUIRED_TEXTS, *REQUIRED_NUMBERS)
_REMEASURE: Final = "re-measure or drop the row"
_EXACT_WHOLE: Final = 2**53
"""Float64 counts exactly up to here: beyond it, two frames would share a number."""


def identity_of(columns: Sequence[str], key: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the columns that name a row: those of `schema.IDENTITY` that exist, then `key`.

    >>> identity_of(["src", "encoder", "cq", "frame_index", "vmaf", "test"], key=["test"])
    ('src', 'encoder', 'cq', 'frame_index', 'test')
    """
    return tuple(dict.fromkeys([*(name for name in IDENTITY if name in columns), *key]))


def valid_rows(
    table: pl.DataFrame, *, key: Sequence[str], where: str, place: Callable[[int], str]
) -> pl.DataFrame:
    """Return `table` with the required columns first and typed; its rows and the rest stay.

    `src` and `encoder` become String, `frame_index` Int64, the other required columns Float64.
    `where` names the file, `place` the line of a row counted from 0. BadCorpus names the first
    row of the first column that lacks a value, has another type, is not finite or lies out of its
    range; then the first row whose `identity_of` was there before.
    """
    _refuse_missing(table, key, where)
    if table.is_empty():
        raise BadCorpus("holds no rows", where=where, expected="at least one")
    for name in _REQUIRED:
        _refuse_wrong_type(table[name], where, place)
    table = table.select(
        pl.col(REQUIRED_TEXTS).cast(pl.String),
        pl.col(REQUIRED_NUMBERS).cast(pl.Float64),
        pl.exclude(_REQUIRED),
    )
    low, high = VMAF_RANGE
    frame = pl.col("frame_index")
    rules = [
        *((name, pl.col(name) != "", "not be empty") for name in REQUIRED_TEXTS),
        *((name, pl.col(name).is_finite(), "be finite") for name in REQUIRED_NUMBERS),
        ("vmaf", pl.col("vmaf").is_between(low, high), f"lie in {low:g}..{high:g}"),
        ("frame_index", frame == frame.floor(), "be a whole number"),
        ("frame_index", frame >= 0, "not be negative"),
        ("frame_index", frame < _EXACT_WHOLE, "lie below 2**53"),
    ]
    kept = table.select(holds.all().alias(str(at)) for at, (_, holds, _) in enumerate(rules)).row(0)
    for (name, holds, rule), is_kept in zip(rules, kept, strict=True):
        if not is_kept:
            row = table.select((~holds).arg_max()).item()
            raise BadCorpus(
                f"{name} must {rule}",
                where=f"{where} {place(row)}",
                found=show(table[name][row]),
                fix=_REMEASURE,
            )
    table = table.with_columns(frame.cast(pl.Int64))
    ids = table.select(identity_of(table.columns, key))
    _refuse_nested(ids, where)
    _refuse_twins(ids, where, place)
    return table


def _refuse_missing(table: pl.DataFrame, key: Sequence[str], where: str) -> None:
    missing = [name for name in _REQUIRED if name not in table.columns]
    if missing:
        raise BadCorpus(
            f"missing required columns: {', '.join(missing)}",
            where=where,
            found=textwrap.shorten(", ".join(table.columns), 300) or "none",
            fix="rename the columns, or build the corpus anew",
        )
    for name in key:
        if name not in table.columns:
            raise BadCorpus(
                f"there is no column {name} to tell rows apart",
                where=where,
                found=textwrap.shorten(", ".join(table.columns), 300),
                fix=did_you_mean(name, table.columns) or "name one of these",
            )


def _refuse_wrong_type(column: pl.Series, where: str, place: Callable[[int], str]) -> None:
    name, kind = column.name, column.dtype
    if column.has_nulls():
        raise BadCorpus(
            f"{name} has no value",
            where=f"{where} {place(column.is_null().arg_max() or 0)}",
            fix=_REMEASURE,
        )
    wants_text = name in REQUIRED_TEXTS
    is_text = isinstance(kind, pl.String | pl.Categorical | pl.Enum)
    if not (is_text if wants_text else kind.is_numeric()):
        raise BadCorpus(
            f"{name} has the wrong type",
            where=f"{where} {place(0)}",
            expected="text" if wants_text else "a number",
            found=show(column[0]),
            fix="write one type in the whole column",
        )


def _refuse_nested(ids: pl.DataFrame, where: str) -> None:
    for name, kind in ids.schema.items():
        if kind.is_nested():
            raise BadCorpus(
                f"{name} cannot tell rows apart",
                where=where,
                expected="text or a number",
                found="a list or an object",
                fix="write a plain value",
            )


def _refuse_twins(ids: pl.DataFrame, where: str, place: Callable[[int], str]) -> None:
    # Equal rows have equal hashes, and to count hashes is the faster way to see that none are.
    if ids.hash_rows().n_unique() == ids.height:
        return
    again = ids.is_duplicated()
    if not again.any():
        return
    groups = ids.with_row_index("row").filter(again).group_by(ids.columns).agg("row")
    pairs = groups.select(first=pl.col("row").list.get(0), second=pl.col("row").list.get(1))
    first, second = pairs.sort("second").row(0)
    values = zip(ids.columns, ids.row(second), strict=True)
    raise BadCorpus(
        f"the row of {place(first)} again",
        where=f"{where} {place(second)}",
        found=", ".join(f"{name} {show(value)}" for name, value in values),
        fix="drop one of the two, or name the column that tells them apart (--key)",
    )
