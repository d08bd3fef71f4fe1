"""What a child process says on stderr, heard while it speaks: its memory does not grow with it.

ffmpeg's threads share one log. Some write a line piece by piece, and what another says meanwhile
stands in that line, without a prefix. But each piece can be painted by its level: so a complaint is
known wherever it stands, and becomes a line of its own.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["Said", "painted", "reason_of", "remark_of"]

_MOST_BYTES: Final = 2**20
"""Kept of the start, and of the end: a reason stands at either, and a flood between them."""
_LONGEST_LINE: Final = 2**16

_PAINT: Final = re.compile(r"\x1b\[([\d;]*)m")
_LOUD: Final = {"4;31": "fatal", "1;31": "error", "0;33": "warning"}
"""ffmpeg's colours of complaints; its other levels and the names of its parts have others."""
_PREFIXES: Final = frozenset({"[panic] ", "[fatal] ", "[error] ", "[warning] "})


def painted(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which ffmpeg paints its log, in the colours known here."""
    ours = {name: value for name, value in environment.items() if "AV_LOG_FORCE" not in name}
    return ours | {"AV_LOG_FORCE_COLOR": "1", "TERM": ""}  # others have 256 colours


class Said:
    r"""The lines of a child, in the order in which they come.

    Each goes to `listen` first, without its colours, and is kept unless that returns true. Of what
    is kept, the start and the end stay where it becomes too much.

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
        for each in _apart(line) if "\x1b" in line else (line,):
            if not self._listen(each):
                self._keep(each)

    def _keep(self, line: str) -> None:
        in_end = bool(self._end) or self._sizes[0] + len(line) > _MOST_BYTES
        (self._end if in_end else self._start).append(line)
        self._sizes[in_end] += len(line)
        while self._sizes[1] > _MOST_BYTES:
            self._sizes[1] -= len(self._end.popleft())


def _apart(line: str) -> list[str]:
    r"""Return a line without its colours, and what another thread complained of in the midst of it.

    >>> _apart("[info] one frame, type:I \x1b[1;31mEnd of file\n")
    ['[info] one frame, type:I \n', '[error] End of file\n']
    """
    first, *pieces = _PAINT.split(line)
    own, level, asides = first, "", dict.fromkeys(_LOUD.values(), "")
    for colour, text in zip(pieces[::2], pieces[1::2], strict=True):
        loud = _LOUD.get(colour, "")
        if text in _PREFIXES:
            level = loud
        if loud and loud != level:
            asides[loud] += text
        else:
            own += text
    others = [f"[{loud}] {text.rstrip()}\n" for loud, text in asides.items() if text.strip()]
    own = own.rstrip("\n") + "\n" * line.endswith("\n") if others else own
    return [own, *others] if own else others


_CONSEQUENCES: Final = re.compile(
    r"Error (applying|initializing|opening|parsing|processing|reinitializing|selecting|sending"
    r"|setting|splitting|while)\b|Error : |Conversion failed|Task finished with|Last message"
    r"|Terminating thread|Nothing was written|Could not open encoder|Cannot open lib"
    r"|Device (creation|setup) failed|Failed to set value"
)
"""How lines begin in which ffmpeg tells what followed from an error."""
_LEVEL: Final = re.compile(r"\[(panic|fatal|error|warning|info)\] ")
_ADDRESS: Final = re.compile(r" @ 0x[0-9a-f]+\]")
_NAMES: Final = re.compile(r"^(\[[^\]]*\] )+")


def reason_of(stderr: str) -> str:
    r"""Return ffmpeg's own reason for a failure: its last complaint that is not a consequence.

    Where there are only consequences, the first. Libraries that write past ffmpeg's log count if
    they say "error"; an empty text means that nobody complained.

    >>> reason_of("[h264_nvenc @ 0x5] [error] Cannot load libcuda.so.1\n[error] Conversion failed!")
    '[h264_nvenc] Cannot load libcuda.so.1'
    """
    causes, consequences = _complaints(stderr)
    said_last = causes[-1:] or consequences[:1] or [""]
    return said_last[0].rstrip(".")


def remark_of(stderr: str) -> str:
    r"""Return one complaint that does not depend on which of ffmpeg's threads was the first.

    It lacks the name of who complained, as what stands in another's line has none.

    >>> remark_of("[h264 @ 0x5] [error] no frame!\n[error] broken")
    'broken'
    """
    causes, consequences = _complaints(stderr)
    return min((_NAMES.sub("", text).rstrip(".") for text in causes or consequences), default="")


def _complaints(stderr: str) -> tuple[list[str], list[str]]:
    """Return complaints that may be a cause, and those that tell what followed from one."""
    causes: list[str] = []
    consequences: list[str] = []
    for line in stderr.splitlines():
        level = _LEVEL.search(line)
        if level[1] in {"warning", "info"} if level else "error" not in line.lower():
            continue
        text = _ADDRESS.sub("]", _LEVEL.sub("", line)).strip()
        (consequences if _CONSEQUENCES.match(_NAMES.sub("", text)) else causes).append(text)
    return causes, consequences
