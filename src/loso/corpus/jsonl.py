"""JSON lines become a table: fast where they are alike or counts prove it whole, else in Python.

Where all lines have the same keys, plain numbers and plain texts, as in a corpus, compiled code
reads them if it is installed; it gives up on anything else. Then polars reads. It is fast too, but
takes the columns from a sample, turns a number in a text column into text, keeps the first of two
equal keys, and names no line when it fails. So what it has read is counted against the bytes;
where that does not add up, Python reads each line and names the bad one.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from loso.errors import BadCorpus
from loso.schema import REQUIRED_NUMBERS, REQUIRED_TEXTS
from loso.stored import most_cells

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

try:
    from loso.corpus._jsonl import read_flat
except ImportError:  # installed without a compiler
    read_flat = None  # type: ignore[assignment]

__all__ = ["MOST_LINE_BYTES", "line_of", "read_jsonl", "refuse_long_lines", "show"]

MOST_LINE_BYTES: Final = 2**22
"""A row of ten thousand columns takes a tenth of it."""

_MOST_COLUMNS: Final = 2**14
"""Each takes time and memory of its own, beside that of its values."""

_SAMPLE: Final = 1000
"""Lines that name the columns in the first attempt: to ask all of them takes three times longer."""

_BLOCK: Final = 2**18
"""Bytes counted at a time: they stay in the processor's cache."""

_TELLING_ESCAPE: Final = re.compile(rb"\\(?!u(?!00[0-7]|[dD][89a-fA-F]))")
"""An escape that may stand for a mark or for half a character; \\u00e9 and its like cannot."""

_POLARS_FAILS: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException)

_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = " \t\r\n"
_NESTED: Final = ("a list", "an object")
_KINDS: Final[dict[type, str]] = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: _NESTED[0],
    tuple: _NESTED[1],
}
_REQUIRED_KINDS: Final = {
    **dict.fromkeys(REQUIRED_TEXTS, _KINDS[str]),
    **dict.fromkeys(REQUIRED_NUMBERS, _KINDS[float]),
}
# Objects come out as tuples of pairs: a dict would hide a key that stands there twice.
_parse: Final[Callable[[str], Any]] = json.JSONDecoder(object_pairs_hook=tuple).decode


def read_jsonl(content: bytes, where: str) -> pl.DataFrame:
    """Return a row for each line of `content` that is not blank, in order, with every key a column.

    A key that a line lacks is null there. A byte order mark is skipped. BadCorpus, with the file's
    name from `where`, names the first line that is not one JSON object, repeats a key, holds a
    number that is not finite, or changes the type of a column.
    """
    content = content.removeprefix(_BOM)
    refuse_long_lines(content, where)
    table = _read_alike(content, where)
    if table is not None:
        return table
    _refuse_wide(content, where, sample=_SAMPLE)
    numbers = pl.Schema(dict.fromkeys(REQUIRED_NUMBERS, pl.Float64()))
    with ThreadPoolExecutor(max_workers=1) as beside:
        counting = beside.submit(_count_marks, content)
        table = _read(content, sample=_SAMPLE, known=numbers)
        marks = counting.result()
    if table is not None and _is_whole(table, marks, nulls=0):
        return table
    _refuse_wide(content, where, sample=None)
    table = _read(content, sample=None, known=None)
    nulls = content.count(b":null") + content.count(b": null")
    if table is not None and _is_whole(table, marks, nulls=nulls):
        return table
    if not any(_filled_lines(content)):
        raise BadCorpus("holds no rows", where=where, expected="at least one")
    _check_lines(content, where)
    if table is None:
        raise BadCorpus(
            "its lines do not make one table",
            where=where,
            expected="nested values of the same shape on every line",
            fix="leave nested columns out",
        )
    return table


def line_of(row: int, content: bytes) -> int:
    """Return the number of the line, from 1, that holds `row`, counted from 0 over filled lines."""
    lines = _filled_lines(content.removeprefix(_BOM))
    return next(number for at, (number, _) in enumerate(lines) if at == row)


def show(value: Any) -> str:
    """Return `value` as a refusal shows it: short, and in quotes where it is text.

    >>> show(100.0), show("a")
    ('100', '"a"')
    """
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    text = json.dumps(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def refuse_long_lines(content: bytes, where: str) -> None:
    """Refuse, as BadCorpus, a line of more than 8 MiB; one of less than 4 MiB never is."""
    for start in range(0, len(content) - MOST_LINE_BYTES + 1, MOST_LINE_BYTES):
        if content.find(b"\n", start, start + MOST_LINE_BYTES) < 0:
            line = content.count(b"\n", 0, start) + 1
            raise BadCorpus(
                "too long to be a row",
                where=f"{where} line {line}",
                expected=f"at most {MOST_LINE_BYTES} bytes",
                fix="write each row on a line of its own",
            )


def _refuse_wide(content: bytes, where: str, *, sample: int | None) -> None:
    """Refuse keys that would make a table out of all proportion to the bytes they stand in.

    A key that few lines have is a column of nulls on all others.
    """
    try:
        schema = pl.scan_ndjson(io.BytesIO(content), infer_schema_length=sample).collect_schema()
    except _POLARS_FAILS:
        return
    columns = sum(map(_leaves, schema.dtypes()))
    rows = min(content.count(b"\n") + 1, content.count(b"{"))
    most = min(_MOST_COLUMNS, most_cells(len(content)) // max(rows, 1))
    if columns > most:
        raise _too_wide(columns, most, where)


def _too_wide(columns: int, most: int, where: str) -> BadCorpus:
    return BadCorpus(
        "too many different keys",
        where=where,
        expected=f"at most {most} in a file of so many lines and bytes",
        found=f"{columns}",
        fix="leave out columns that few rows have",
    )


def _leaves(kind: PolarsDataType) -> int:
    """Return how many columns of plain values a column takes."""
    return sum(_leaves(dtype) for _, dtype in kind) if isinstance(kind, pl.Struct) else 1


def _read_alike(content: bytes, where: str) -> pl.DataFrame | None:
    columns = read_flat(content, pl.thread_pool_size()) if read_flat is not None else None
    if columns is None:
        return None
    if len(columns) > _MOST_COLUMNS:
        raise _too_wide(len(columns), _MOST_COLUMNS, where)
    return pl.DataFrame(
        {
            name: pl.Series(values[1], dtype=pl.String).gather(pl.Series(values[0]))
            if isinstance(values, tuple)
            else pl.Series(values, dtype=pl.Float64 if name in REQUIRED_NUMBERS else None)
            for name, values in columns.items()
        }
    )


def _read(content: bytes, *, sample: int | None, known: pl.Schema | None) -> pl.DataFrame | None:
    try:
        return pl.read_ndjson(content, infer_schema_length=sample, schema_overrides=known)
    except _POLARS_FAILS:
        return None


class _Marks(NamedTuple):
    """How often the bytes that give JSON its shape occur; `telling` if some may be escaped."""

    braces: int
    brackets: int
    colons: int
    quotes: int
    telling: bool


def _count_marks(content: bytes) -> _Marks:
    data = np.frombuffer(content, np.uint8)
    counts = np.zeros(4, np.int64)
    for start in range(0, len(data), _BLOCK):  # four times as fast as bytes.count
        block = data[start : start + _BLOCK]
        counts += [np.count_nonzero(block == mark) for mark in b'{[:"']
    telling = b"\\" in content and _TELLING_ESCAPE.search(content) is not None
    braces, brackets, colons, quotes = counts.tolist()
    return _Marks(braces, brackets, colons, quotes, telling=telling)


def _is_whole(table: pl.DataFrame, marks: _Marks, *, nulls: int) -> bool:
    """Tell whether `marks` prove that `table` holds what the lines say; False is "not proven".

    Where no mark is escaped and nothing listed or nested, every quote delimits a key or a text,
    and every colon outside a text follows a key. Then as many keys as values and spelled `nulls`
    means that no value was left out and no key came twice (but to repeat one as null while another
    row lacks it), and a pair of quotes for each key and each text that no text was a number.
    """
    if marks.telling or marks.brackets or marks.braces != table.height:
        return False
    texts = table.select(pl.col(pl.String))
    colons_inside = sum(column.str.count_matches(":", literal=True).sum() for column in texts)
    keys = marks.colons - colons_inside
    values = sum(column.count() for column in table)
    if colons_inside:
        nulls = 0  # a text may hold ":null"
    if keys != values + nulls or keys > table.height * table.width:
        return False
    return marks.quotes == 2 * (keys + sum(column.count() for column in texts))


def _filled_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(io.BytesIO(content), start=1):
        if line.strip(_SPACE.encode()):
            yield number, line


def _check_lines(content: bytes, file: str) -> None:
    """Refuse the first line that cannot be a row of one table with those before it."""
    kinds: dict[str, tuple[str, int | None]] = {k: (v, None) for k, v in _REQUIRED_KINDS.items()}
    for number, line in _filled_lines(content):
        where = f"{file} line {number}"
        pairs = _pairs(line, where)
        if len({name for name, _ in pairs}) < len(pairs):
            times = Counter(name for name, _ in pairs)
            twice = next(name for name, count in times.items() if count > 1)
            raise BadCorpus(f"the key {twice} is there twice", where=where, fix="keep one")
        for name, value in pairs:
            if value is None:
                continue
            kind = _KINDS[type(value)]
            expected, since = kinds.setdefault(name, (kind, number))
            if kind != expected:
                raise BadCorpus(
                    f"{name} has the wrong type",
                    where=where,
                    expected=expected + (f" as in line {since}" if since else ""),
                    found=kind if kind in _NESTED else f"{kind} ({show(value)})",
                    fix="write one type in the whole column",
                )
            _check_value(name, value, where)


def _pairs(line: bytes, where: str) -> tuple[tuple[str, Any], ...]:
    fix = "repair the line or drop it"
    try:
        row = _parse(line.decode().rstrip(_SPACE))
    except UnicodeDecodeError as error:
        raise BadCorpus(
            f"not UTF-8 text (byte {error.start + 1})", where=where, fix="save the file as UTF-8"
        ) from None
    except RecursionError:
        raise BadCorpus("nested too deeply to be a row", where=where, fix=fix) from None
    except json.JSONDecodeError as error:
        raise BadCorpus(
            f"not JSON ({error.msg} at column {error.colno})",
            where=where,
            expected="one JSON object",
            found=show(error.doc),
            fix=fix,
        ) from None
    except ValueError:  # Python declines to convert integers of thousands of digits
        raise BadCorpus("a number has too many digits", where=where, fix=fix) from None
    if type(row) is not tuple:
        kind = _KINDS.get(type(row), "null")
        raise BadCorpus(
            "not an object",
            where=where,
            expected='one JSON object {"src": ...}',
            found=kind,
            fix=fix,
        )
    return row


def _check_value(name: str, value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise BadCorpus(
            f"{name} must be finite",
            where=where,
            found="NaN" if math.isnan(value) else "infinity",
            fix="re-measure or drop the row",
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadCorpus(
            f"{name} is too large",
            where=where,
            expected="a number of 64 bits",
            found=show(value),
            fix="re-measure or drop the row",
        )
    try:
        (name + value if isinstance(value, str) else name).encode()
    except UnicodeEncodeError:
        raise BadCorpus(
            "half a character (a lone surrogate)",
            where=where,
            found=f"{show(name)}: {show(value)}",
            fix="write the whole character",
        ) from None
