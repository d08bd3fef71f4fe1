"""What a person sees of a command: it runs by itself, at a terminal of a width."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from dataclasses import dataclass

LONGEST_S = 60
"""A command that takes longer hangs."""

OF_COLOUR = ("COLORTERM", "COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TERM")

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STYLED = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])(?:;\d+)*m")
"""Escapes of any kind, those that change how text looks, and those of them that colour it."""


@dataclass(frozen=True)
class Seen:
    """What was written to the terminal, stdout and stderr alike, and how the command ended."""

    raw: str
    code: int

    @property
    def drawn(self):
        """Every line that stood there at some time, in the order they were drawn."""
        return [ESCAPE.sub("", line).rstrip() for line in re.split(r"[\r\n]+", self.raw)]

    @property
    def lines(self):
        """The lines that stand there in the end."""
        return stand(self.raw)


def stand(raw):
    """Play what was written on lines without end; return those that stand there then."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", raw):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif re.fullmatch(r"\x1b\[\d*A", part):
            row -= int(part[2:-1] or 1)
        elif part[0] != "\x1b":
            before = lines[row].ljust(column)
            lines[row] = before[:column] + part + before[column + len(part) :]
            column += len(part)
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.rstrip() for line in lines]


def at_terminal(*words, width=80, keys=None, **variables):
    """Run the program at a terminal of `width` columns; return what is seen there.

    `keys` are typed as soon as something stands there that has their first entry in it.
    """
    env = {name: value for name, value in os.environ.items() if name not in OF_COLOUR}
    env |= {"TERM": "xterm", **variables}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    start = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"  # who types is heard
    command = [sys.executable, "-c", f"{start}; from loso.cli import main; main()"]
    raw = b""
    with subprocess.Popen(
        [*command, *map(str, words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        start_new_session=True,
    ) as child:
        os.close(theirs)
        hung = threading.Timer(LONGEST_S, child.kill)
        hung.start()
        with suppress(OSError):  # what reading means when nobody writes any more
            while part := os.read(ours, 65536):
                raw += part
                if keys and keys[0].encode() in raw:
                    os.write(ours, keys[1].encode())
                    keys = None
        child.wait()
        hung.cancel()
    os.close(ours)
    return Seen(raw.decode().replace("\r\n", "\n"), child.returncode)
