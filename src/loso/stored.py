"""What is stored packed, opened within bounds: a small file must not fill the memory.

A file that was made for that becomes a thousand times its size. Rows that were measured shrink to a
tenth, and those of a still picture, alike but for their frame's number, to a hundredth.
"""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Final

import polars as pl

__all__ = ["MOST_CELLS", "most_cells", "read_parquet", "unpack"]

_TIMES_PACKED: Final = 200
_FREE_BYTES: Final = 64 * 2**20
_BLOCK: Final = 2**24

MOST_CELLS: Final = 2**24
"""Values of a table that any file may hold: 128 MiB of numbers."""

_NO_VALUES: Final = (pl.Binary, pl.Object)

_CELLS_A_BYTE: Final = 8
"""A number that was measured takes bytes of its own; columns of one value take next to none."""


def unpack(content: bytes, *, free_bytes: int = _FREE_BYTES) -> bytes:
    """Return what gzip has packed, at most two hundred times its size or `free_bytes`.

    ValueError says why there is none.

    >>> unpack(gzip.compress(b"rows"))
    b'rows'
    """
    most = max(free_bytes, _TIMES_PACKED * len(content))
    unpacked = io.BytesIO()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            while block := stream.read(_BLOCK):
                unpacked.write(block)
                if unpacked.tell() > most:
                    raise ValueError(f"unpacks to more than {most} bytes, as no measured rows do")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"not a whole gzip file ({error})") from None
    return unpacked.getvalue()


def most_cells(size: int) -> int:
    """Return how many values a table may hold that was read from so many bytes."""
    return max(MOST_CELLS, _CELLS_A_BYTE * size)


def read_parquet(content: bytes) -> pl.DataFrame:
    """Return the table in the bytes of a Parquet file; ValueError says why there is none.

    Its footer says how many values there are, before any is read, and of what kind: of a list, a
    structure or bytes, one value can be as large as all others. So can a text, which is not held
    to a bound here: the footer that polars shows does not tell its length.
    """
    try:
        table = pl.scan_parquet(io.BytesIO(content))
        schema = table.collect_schema()
        for name, dtype in schema.items():
            if dtype.is_nested() or dtype in _NO_VALUES:
                raise ValueError(f"column {name[:40]!r} holds {dtype.base_type()}, not one value")
        columns = len(schema)
        rows = table.select(pl.len()).collect().item()
        if rows * columns > most_cells(len(content)):
            raise ValueError(
                f"{rows} rows of {columns} columns in {len(content)} bytes, as no measured rows do"
            )
        return pl.read_parquet(content)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None
