"""Decodes Parquet for another process, and may die of it: `python -P -m loso.decoder`.

polars can be made to ask for more memory than there is. That ends its process, and no Python code
can catch it; so it is done here, with no more memory than a measured table of that size needs.

A request is the length of a file, in eight bytes; READY answers it, and the file follows. What
comes back are blocks of bytes, each with its length before it and an empty one at the end: first a
JSON object, `{}` or what is wrong, then the table in slices, each of them an Arrow file.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import polars as pl

from loso.stored import READY, NotMeasured, most_cells, most_unpacked

if sys.platform == "linux":
    import resource

__all__ = ["decode", "main", "serve", "working_memory"]

_IDLE_S: Final = 10.0
"""How long a process waits for the next file: to start one takes a third of a second."""

_KEPT_BYTES: Final = 2**24
"""After a larger file the process ends, and its memory goes back at once."""

_SLICE_CELLS: Final = 2**22
_NO_VALUES: Final = (pl.Binary, pl.Object)
_TEXTS: Final = (pl.String, pl.Categorical, pl.Enum)

_FREE_BYTES: Final = 512 * 2**20
_TIMES_SIZE: Final = 8
_BYTES_A_CELL: Final = 32


def working_memory(size: int, cells: int = 0) -> int:
    """Return the bytes that decoding may take of a file of so many bytes and values.

    The file itself is there packed, unpacked and in its columns, and its footer unfolds. A text
    takes sixteen bytes beside its letters, a number eight: twice that is for pages that are
    unpacked at the same time, and for the slice that is handed back.
    """
    return _FREE_BYTES + _TIMES_SIZE * size + _BYTES_A_CELL * cells


def decode(content: bytes, limit: Callable[[int], None]) -> pl.DataFrame:
    """Return the table in the bytes of a Parquet file; `limit` is told what memory it may take.

    Its footer says how many values there are, before any is read, and of what kind: of a list, a
    structure or bytes, one value can be as large as all others.
    """
    size = len(content)
    table = pl.scan_parquet(io.BytesIO(content))
    schema = table.collect_schema()
    for name, dtype in schema.items():
        if dtype.is_nested() or dtype in _NO_VALUES:
            problem = f"column {name[:40]!r} holds {dtype.base_type()}, not one value"
            raise NotMeasured(problem, "leave the column out")
    columns = len(schema)
    rows = table.select(pl.len()).collect().item()
    if rows * columns > most_cells(size):
        problem = f"{rows} rows of {columns} columns in {size} bytes, as no measured rows do"
        raise NotMeasured(problem, "leave out what is the same in every row")
    limit(working_memory(size, rows * columns))
    decoded = pl.read_parquet(content)
    of_text = [name for name, dtype in schema.items() if dtype in _TEXTS]
    letters = sum(decoded[name].cast(pl.String).str.len_bytes().sum() for name in of_text)
    if letters > most_unpacked(size):
        problem = f"texts of {letters} bytes in {size} bytes, as no measured rows do"
        raise NotMeasured(problem, "shorten them")
    return decoded


def _limit_memory(more: int) -> None:
    """Let this process take so many bytes beside what it has, and no more; on Linux alone."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").partition(" ")[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = pages * resource.getpagesize() + more
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _send(answers: BinaryIO, block: bytes | memoryview) -> None:
    answers.write(len(block).to_bytes(8, "big"))
    answers.write(block)


def _answer(content: bytes, answers: BinaryIO) -> bool:
    """Send the table in a file, or what is wrong with it; tell whether to take another one."""
    said: dict[str, str] = {}
    sound, table = True, None
    try:
        table = decode(content, _limit_memory)
    except NotMeasured as error:
        said = {"problem": str(error), "fix": error.fix}
    except (pl.exceptions.PolarsError, OSError) as error:
        said = {"problem": str(error).partition("\n")[0]}
    except pl.exceptions.PanicException as error:
        said, sound = {"problem": str(error).partition("\n")[0]}, False
    _send(answers, json.dumps(said).encode())
    if table is not None:
        rows = max(1, _SLICE_CELLS // max(1, table.width))
        for start in range(0, max(1, table.height), rows):
            piece = io.BytesIO()
            table.slice(start, rows).write_ipc(piece)
            _send(answers, piece.getbuffer())
    _send(answers, b"")
    answers.flush()
    return sound and len(content) <= _KEPT_BYTES


@contextmanager
def _gone_when_idle() -> Iterator[None]:
    """End this process where the block takes too long, unless it is over by then."""
    decided = threading.Lock()

    def go() -> None:
        if decided.acquire(blocking=False):
            os._exit(0)

    timer = threading.Timer(_IDLE_S, go)
    timer.daemon = True
    timer.start()
    yield
    decided.acquire()
    timer.cancel()


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more, none for a while, or one that leaves doubts."""
    goes_on = True
    while goes_on:
        with _gone_when_idle():
            length = requests.read(8)
        if not length:
            return
        answers.write(READY)
        answers.flush()
        size = int.from_bytes(length, "big")
        _limit_memory(working_memory(size))
        goes_on = _answer(requests.read(size), answers)


def main() -> None:
    """Serve the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that one ends this one
    if sys.platform == "linux":  # whose end leaves no image of its memory on the disk
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with io.BytesIO() as warm:  # every thread has started before memory is counted
        pl.DataFrame({"a": ["a"]}).write_parquet(warm)
        pl.read_parquet(warm.getvalue())
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
