"""What is stored packed, opened within bounds: a small file must not fill the memory.

A file that was made for that becomes a thousand times its size. Rows that were measured shrink to a
tenth, and those of a still picture, alike but for their frame's number, to a hundredth.
"""

from __future__ import annotations

import atexit
import gzip
import io
import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final

import polars as pl

from loso.errors import CannotRun

__all__ = [
    "MOST_CELLS",
    "READY",
    "NotMeasured",
    "end_decoder",
    "most_cells",
    "most_unpacked",
    "read_parquet",
    "unpack",
]

_TIMES_PACKED: Final = 200
_FREE_BYTES: Final = 64 * 2**20
_BLOCK: Final = 2**24

MOST_CELLS: Final = 2**24
"""Values of a table that any file may hold: 128 MiB of numbers."""

_CELLS_A_BYTE: Final = 8
"""A number that was measured takes bytes of its own; columns of one value take next to none."""


def unpack(content: bytes, *, free_bytes: int = _FREE_BYTES) -> bytes:
    """Return what gzip has packed, at most two hundred times its size or `free_bytes`.

    ValueError says why there is none.

    >>> unpack(gzip.compress(b"rows"))
    b'rows'
    """
    most = most_unpacked(len(content), free_bytes=free_bytes)
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


def most_unpacked(size: int, *, free_bytes: int = _FREE_BYTES) -> int:
    """Return how many bytes may come of so many."""
    return max(free_bytes, _TIMES_PACKED * size)


def most_cells(size: int) -> int:
    """Return how many values a table may hold that was read from so many bytes."""
    return max(MOST_CELLS, _CELLS_A_BYTE * size)


# -- Parquet --------------------------------------------------------------------------------------

READY: Final = b"!"
"""What the process that decodes says before it takes a file."""

_PROGRAM: Final = ("-P", "-m", "loso.decoder")
_THREADS: Final = "4"
"""More take more memory at a time, and hardly less time."""

_START_S: Final = 60.0
_DECODE_S: Final = 20.0
_BYTES_A_SECOND: Final = 2**20
"""Beyond `_DECODE_S`: a busy machine decodes fifty times as many."""


class NotMeasured(ValueError):
    """What was stored is no table of measured rows, and `fix` says what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


def read_parquet(content: bytes) -> pl.DataFrame:
    """Return the table in the bytes of a Parquet file; ValueError says why there is none.

    NotMeasured, which is one, says what to do. A process of its own decodes it, since polars can be
    made to end the one that it works in; CannotRun where there is none.

    >>> rows = io.BytesIO()
    >>> pl.DataFrame({"vmaf": [90.0]}).write_parquet(rows)
    >>> read_parquet(rows.getvalue()).height
    1
    """
    return _DECODER.decode(content)


def end_decoder() -> None:
    """End the process that decodes Parquet, if there is one; the next file starts another."""
    _DECODER.end()


class _Decoder:
    """A process of `loso.decoder`, started for the first file and wherever the last has ended."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def decode(self, content: bytes) -> pl.DataFrame:
        limit_s = _DECODE_S + len(content) / _BYTES_A_SECOND
        with self._turn:
            try:
                child = self._awake(len(content))
                with _killed_after(limit_s, child) as late:
                    requests, answers = _pipes(child)
                    requests.write(content)
                    requests.flush()
                    said = json.loads(_block(answers))
                    slices = [pl.read_ipc(block) for block in iter(lambda: _block(answers), b"")]
            except (BrokenPipeError, EOFError):
                raise _death(self.end(), limit_s if late.is_set() else None) from None
            except BaseException:
                self.end()
                raise
        if "fix" in said:
            raise NotMeasured(said["problem"], said["fix"])
        if said:
            raise ValueError(said["problem"])
        return pl.concat(slices, rechunk=False)

    def _awake(self, length: int) -> subprocess.Popen[bytes]:
        """Return the process, which has said that it is ready for so many bytes."""
        for _ in range(2):  # one that nobody needed for a while has ended
            child = self._child if self._owner == os.getpid() else None
            if child is None:
                child = self._start()
            with suppress(BrokenPipeError), _killed_after(_START_S, child):
                requests, answers = _pipes(child)
                requests.write(length.to_bytes(8, "big"))
                requests.flush()
                if answers.read(1) == READY:
                    return child
            self.end()
        raise CannotRun("the process that decodes Parquet does not start")

    def _start(self) -> subprocess.Popen[bytes]:
        threads = {"POLARS_MAX_THREADS": os.environ.get("POLARS_MAX_THREADS", _THREADS)}
        try:
            self._child = subprocess.Popen(
                [sys.executable, *_PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | threads | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except OSError as error:
            problem = f"the process that decodes Parquet does not start ({error.strerror})"
            raise CannotRun(problem) from None
        self._owner = os.getpid()
        atexit.register(self.end)
        # Waited for from the start: it ends by itself, too, and would be left a zombie until then.
        threading.Thread(target=self._child.wait, daemon=True).start()
        return self._child

    def end(self) -> int:
        """End the process, if there is one; return what it ended with."""
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return 0
        atexit.unregister(self.end)
        child.kill()
        for pipe in _pipes(child):
            with suppress(BrokenPipeError):
                pipe.close()
        return child.wait()


_DECODER: Final = _Decoder()


def _pipes(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Return where requests go to, and where answers come from."""
    if child.stdin is None or child.stdout is None:
        raise CannotRun("the process that decodes Parquet cannot be talked to")
    return child.stdin, child.stdout


@contextmanager
def _killed_after(seconds: float, child: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Kill `child` where the block takes longer; what is yielded is set then."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _block(answers: IO[bytes]) -> bytes:
    """Return the next block of an answer; EOFError where it breaks off."""
    length = answers.read(8)
    block = answers.read(int.from_bytes(length, "big"))
    if len(length) < 8 or len(block) < int.from_bytes(length, "big"):
        raise EOFError
    return block


def _death(code: int, limit_s: float | None) -> Exception:
    """Return what is said of a file whose decoding has ended the process."""
    if limit_s is None and code == -9:
        return CannotRun(
            "decoding Parquet was ended by signal 9, as systems short of memory do",
            fix="free memory, and try again",
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    problem = f"decoding ended with {how}: broken pages, or more memory than measured rows take"
    if limit_s is not None:
        problem = f"decoding takes longer than {limit_s:.0f} s, as that of no measured rows does"
    return NotMeasured(problem, "copy or write it again, or as .jsonl")
