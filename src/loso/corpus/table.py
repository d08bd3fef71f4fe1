"""A table that somebody else wrote, such as one of scores: read, and its cells given types."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from loso.corpus.jsonl import read_jsonl
from loso.corpus.names import listed
from loso.errors import BadInput
from loso.files import open_regular
from loso.spelling import nearest
from loso.stored import read_parquet

__all__ = ["read_table", "require_column"]

_MOST_COLUMNS: Final = 2**14
"""Each takes time and memory of its own, beside that of its values."""


def read_table(path: Path, *, texts: Sequence[str]) -> pl.DataFrame:
    """Return the rows of Parquet, JSONL or a text table of commas, semicolons or tabs.

    Which of these it is, its content tells. Columns of `texts` come out as text, others as numbers
    where every cell is one; an empty cell is null. BadInput where it is none of these, and
    for a column that is there twice, has no name or holds lists or objects.
    """
    where = str(path)
    try:
        with open_regular(path) as stream:
            content = stream.read()
    except FileNotFoundError:
        raise BadInput("file not found", where=where) from None
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=where) from None
    table = _parse(content, where)
    _refuse_wide(table.width, where)
    # polars numbers a column that comes again: mos_duplicated_0.
    names = [re.sub(r"_duplicated_[0-9]+$", "", name).strip() for name in table.columns]
    times = Counter(names)
    wrong = [name for name in names if not name or times[name] > 1]
    if wrong:
        raise BadInput(
            f"two columns are named {wrong[0]}" if wrong[0] else "a column without a name",
            where=where,
            found=listed(names),
            fix="rename it or drop it",
        )
    table.columns = names
    nested = [name for name, kind in table.schema.items() if kind.is_nested()]
    if nested:
        raise BadInput(f"{nested[0]} is a list or an object", where=where, fix="drop the column")
    return table.select(_typed(column, as_text=column.name in texts) for column in table)


def require_column(name: str, columns: Sequence[str], where: str) -> None:
    """Refuse, as BadInput, `columns` without `name`, with the one that looks like it."""
    if name in columns:
        return
    near = nearest(name, columns)
    raise BadInput(
        f"there is no column {name}",
        where=where,
        found=listed(columns),
        fix=f"rename {near} to {name}" if near else "rename the column",
    )


def _refuse_wide(columns: int, where: str) -> None:
    if columns > _MOST_COLUMNS:
        raise BadInput(
            "too many columns for a table of scores",
            where=where,
            expected=f"at most {_MOST_COLUMNS}",
            found=f"{columns}",
            fix="leave out what says nothing of a clip",
        )


def _parse(content: bytes, where: str) -> pl.DataFrame:
    if content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return read_jsonl(content, where)
    try:
        if content.startswith(b"PAR1"):
            return read_parquet(content)
        header = content.partition(b"\n")[0].decode(errors="replace")
        separator = max(",;\t", key=header.count)
        _refuse_wide(header.count(separator) + 1, where)  # before a column is made of each
        return pl.read_csv(content, separator=separator, infer_schema=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BadInput(
            f"not a table ({reason})",
            where=where,
            expected="a line of column names and a row for each clip, JSONL, or Parquet",
        ) from None


def _typed(column: pl.Series, *, as_text: bool) -> pl.Series:
    """Return a column of numbers where every cell is one, of text otherwise; empty is null."""
    if column.dtype.is_float():
        column = column.cast(pl.Float64).fill_nan(None)
    if not as_text and column.dtype == pl.Boolean:
        return column
    if not as_text and column.dtype.is_numeric():
        whole = column.cast(pl.Int64, strict=False) if column.dtype.is_integer() else None
        fits = whole is not None and whole.null_count() == column.null_count()
        return whole if whole is not None and fits else column.cast(pl.Float64)
    text = column.cast(pl.String).str.strip_chars().replace("", None)
    if as_text:
        return text
    for kind in (pl.Int64, pl.Float64):
        numbers = text.cast(kind, strict=False)
        if numbers.null_count() == text.null_count() and numbers.is_finite().all():
            return numbers
    return text
