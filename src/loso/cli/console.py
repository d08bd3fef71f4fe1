"""What the commands share: results to stdout, progress and hints to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from loso.cli.bars import progress_bar, progress_lines
from loso.errors import Interrupted
from loso.journal import LOG, Once
from loso.progress import Progress
from loso.spelling import spelt_out

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = [
    "NOTHING_WRITTEN",
    "Coloured",
    "answer",
    "hint",
    "hushed",
    "listening",
    "print_json",
    "print_line",
    "print_table",
    "refuse",
    "relay",
    "show_progress",
    "terminal",
    "warn_all",
]


_LEAST_TEXT: Final = 8
"""Columns of a terminal below which text is no longer readable in folds."""

_GAP: Final = 2
"""Columns between two columns of a table."""


class Coloured(str):
    """Text that has a colour on a terminal, by Rich's name of it; elsewhere it is plain."""

    __slots__ = ("colour",)
    colour: str

    def __new__(cls, text: str, colour: str) -> Self:
        """Return `text` with its colour."""
        made = super().__new__(cls, text)
        made.colour = colour
        return made


def answer(text: str, *, good: bool) -> Coloured:
    """Return `text` as an answer, green where it is `good` and red where it is not."""
    return Coloured(text, "green" if good else "red")


def print_json(value: Any) -> None:
    """Print one JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(value, sort_keys=True, allow_nan=False) + "\n")


def print_line(*parts: str) -> None:
    """Print the parts as one line of a result; a terminal folds it between words.

    Characters that would move the cursor are spelt out, here and in all that is said.
    """
    parts = tuple(map(_shown, parts))
    console = terminal()
    if console is None:
        sys.stdout.write("".join(parts) + "\n")
    else:
        from rich.text import Text

        console.print(Text().join(map(_text, parts)))


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, align: str = "") -> None:
    """Print a table that fits a terminal, or columns of plain text elsewhere.

    Where a terminal is too narrow for it, each row is a block of lines, a column a line.
    `align` has a `<` or `>` for each column, and columns beyond it stand on the left: figures are
    to stand on the right. A table without titles has an empty `header`. Cells are shown as they
    are, never read as markup.
    """
    cells = [[_shown(cell) for cell in row] for row in rows]
    titles = [_shown(title) for title in header]
    lines = [titles] * bool(titles) + cells
    align = align.ljust(max(map(len, lines), default=0), "<")
    console = terminal()
    widths = None if console is None else _fitted(titles, cells, align, console.width)
    if widths is None and console is not None and titles:
        for row in cells:
            print_table((), zip(titles, row, strict=True))
            print_line()
        return
    if console is None or widths is None:
        for line in _aligned(lines, align):
            print_line(line)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=bool(titles), padding=(0, _GAP, 0, 0))
    for title, side, width in zip(titles or [""] * len(align), align, widths, strict=True):
        justify: Literal["left", "right"] = "right" if side == ">" else "left"
        table.add_column(
            _text(title), header_style="bold", justify=justify, width=width, overflow="fold"
        )
    for row in cells:
        table.add_row(*map(_text, row))
    console.print(table)


def _fitted(
    titles: list[str], cells: list[list[str]], align: str, most: int
) -> tuple[int, ...] | None:
    """Return the width of each column of a table `most` wide, or None where it cannot be.

    The widest give way first. Text is broken within words, down to `_LEAST_TEXT`, only where all
    of them cannot stand whole; figures and words of titles never are.
    """
    widths, words, least = [], [], []
    for i, side in enumerate(align):
        title = titles[i] if titles else ""
        widest = max((_width(row[i]) for row in cells), default=0)
        of_title = max(map(_width, title.split()), default=0)
        word = max((_width(part) for row in cells for part in row[i].split()), default=0)
        widths.append(max(widest, _width(title)))
        words.append(max(word, of_title))
        least.append(max(of_title, word if side == ">" else min(widest, _LEAST_TEXT)))
    room = most - _GAP * (len(widths) - 1)
    if sum(least) > room:
        return None
    floor = words if sum(words) <= room else least
    while sum(widths) > room:
        loose = [i for i, width in enumerate(widths) if width > floor[i]]
        widest = max(loose, key=lambda i: (widths[i], i))
        # One figure folded and the next not would be hard to read down the column.
        widths[widest] = floor[widest] if align[widest] == ">" else widths[widest] - 1
    return tuple(widths)


def terminal(*, stderr: bool = False) -> Console | None:
    """Return a console on stdout where that is a terminal, or FORCE_COLOR says to take it for one.

    Whether there is colour is for Rich to say, which asks NO_COLOR and TERM.
    """
    stream = sys.stderr if stderr else sys.stdout
    if not (stream.isatty() or os.environ.get("FORCE_COLOR")):
        return None
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def _aligned(lines: list[list[str]], align: str) -> Iterator[str]:
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = []
        for cell, width, side in zip(line, widths, align, strict=True):
            space = " " * (width - _width(cell))
            cells.append(space + cell if side == ">" else cell + space)
        yield (" " * _GAP).join(cells).rstrip()


def _width(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _shown(cell: str) -> str:
    plain = spelt_out(cell)
    return Coloured(plain, cell.colour) if isinstance(cell, Coloured) else plain


def _text(part: str) -> Text:
    from rich.text import Text

    return Text(part, style=part.colour if isinstance(part, Coloured) else "")


# -- What is said to people -----------------------------------------------------------------------

_SAID: Final = LOG.getChild("said")
_PROGRESS: Final = LOG.getChild("progress")
_SAID.setLevel(logging.INFO)


_FAILED: Final = logging.WARNING + 5
logging.addLevelName(_FAILED, "FAILED")

_LEADS: Final = {
    logging.WARNING: ("warning: ", "yellow"),
    _FAILED: ("failed: ", "red"),
    logging.ERROR: ("loso: ", "red"),
}
"""What begins a line of each kind, and its colour."""


class _OnStderr(logging.Handler):
    """Prints what is said, and warnings of any part of loso, on whatever stderr is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, led by what kind it is."""
        said = record.name == _SAID.name
        if not said and record.levelno != logging.WARNING:
            return
        lead, colour = _LEADS.get(record.levelno, ("", ""))
        line = f"{lead}{spelt_out(record.getMessage())}\n"
        console = terminal(stderr=True) if lead else None
        if console is not None:
            from rich.text import Text

            with console.capture() as drawn:  # a progress bar that is up draws itself below
                console.print(
                    Text.assemble((lead, colour), line[len(lead) :]), end="", soft_wrap=True
                )
            line = drawn.get()
        sys.stderr.write(line)


_ON_STDERR: Final = _OnStderr()
LOG.addHandler(_ON_STDERR)


def hint(text: str) -> None:
    """Print a line for people on stderr; with --quiet none."""
    _SAID.info("%s", text)


def warn_all(warnings: tuple[str, ...]) -> None:
    """Print each warning on its own line of stderr, unless it was said before."""
    for warning in warnings:
        _SAID.warning("%s", warning)


def relay(text: str) -> None:
    """Print a line that a part of loso says: `warning: ...`, `failed: ...`, or else a hint."""
    for level, (lead, _) in _LEADS.items():
        if text.startswith(lead):
            _SAID.log(level, "%s", text.removeprefix(lead))
            return
    hint(text)


def refuse(text: str) -> None:
    """Print the one message of a refusal on stderr."""
    _SAID.error("%s", text)


@contextmanager
def listening() -> Iterator[ExitStack]:
    """Hold the log of one command: what --quiet and --log-file ask for ends with the block."""
    once = Once()
    _ON_STDERR.addFilter(once)
    try:
        with ExitStack() as asked:
            yield asked
    finally:
        _ON_STDERR.removeFilter(once)


@contextmanager
def hushed() -> Iterator[None]:
    """Keep progress and hints of the block from stderr; warnings and refusals stay."""
    _ON_STDERR.setLevel(logging.WARNING)
    try:
        yield
    finally:
        _ON_STDERR.setLevel(logging.NOTSET)


# -- Progress -------------------------------------------------------------------------------------


NOTHING_WRITTEN: Final = "nothing was written"
"""What is kept of work that writes only in the end."""


@contextmanager
def show_progress(title: str, *, kept: str = "") -> Iterator[Progress]:
    """Yield a Progress that draws a bar with time left on a terminal, plain lines elsewhere.

    `kept` says, for somebody who stops the work, what is kept and how to go on.
    """
    quiet = _ON_STDERR.level > logging.INFO
    drawable = sys.stderr.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
    try:
        if quiet or not drawable:
            yield progress_lines(title, _PROGRESS.info if quiet else _SAID.info)
            return
        logged = progress_lines(title, _PROGRESS.info)
        with progress_bar(title) as shown:

            def report(done: float, total: float, note: str = "") -> None:
                shown(done, total, note)
                logged(done, total, note)

            yield report
    except KeyboardInterrupt:
        raise Interrupted("stopped", fix=kept) from None
