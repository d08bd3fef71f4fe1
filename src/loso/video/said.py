"""What a child process says on stderr, heard while it speaks: its memory does not grow with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Said"]

_MOST_BYTES: Final = 2**20
"""Kept of the start, and of the end: a reason stands at either, and a flood between them."""
_LONGEST_LINE: Final = 2**16


class Said:
    r"""The lines of a child, in the order in which they come.

    Each goes to `listen` first, and is kept unless that returns true. Of what is kept, the start
    and the end stay where it becomes too much.

    >>> said = Said()
    >>> said.hear(b"one\\ntw"), said.hear(b"o")
    (None, None)
    >>> said.text()
    'one\\ntwo'
    """

    def __init__(self, listen: Callable[[str], bool] = lambda _: False) -> None:
        self._listen = listen
        self._unfinished = b""
        self._start: list[str] = []
        self._end: deque[str] = deque()
        self._sizes = [0, 0]

    def hear(self, chunk: bytes) -> None:
        """Take the next bytes; a line that has no end is cut."""
        *lines, self._unfinished = (self._unfinished + chunk).split(b"\n")
        for line in lines:
            self._take(line + b"\n")
        if len(self._unfinished) > _LONGEST_LINE:
            self._take(self._unfinished + b"\n")
            self._unfinished = b""

    def text(self) -> str:
        """Return what was kept, once all is heard."""
        if self._unfinished:
            self._take(self._unfinished)
            self._unfinished = b""
        return "".join((*self._start, *self._end))

    def _take(self, raw: bytes) -> None:
        line = raw.decode("utf-8", errors="replace").replace("\r", "")
        if self._listen(line):
            return
        in_end = bool(self._end) or self._sizes[0] + len(line) > _MOST_BYTES
        (self._end if in_end else self._start).append(line)
        self._sizes[in_end] += len(line)
        while self._sizes[1] > _MOST_BYTES:
            self._sizes[1] -= len(self._end.popleft())
