"""How far long work is and how long it will take: a bar for a terminal, lines for a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from loso.progress import Progress
from loso.spelling import spelt_out

__all__ = ["progress_bar", "progress_lines"]

_WIDE: Final = 80
"""Columns of a terminal below which the bar is short, for what is being done to be read."""


def progress_lines(title: str, say: Callable[[str], None], *, every_s: float = 10.0) -> Progress:
    """Return a Progress that says a line every `every_s` seconds, and one where a stage ends."""
    started = last = time.monotonic()
    before = 0.0

    def report(done: float, total: float, note: str = "") -> None:
        nonlocal started, last, before
        now = time.monotonic()
        if done < before:  # the next stage begins
            started = now
        before = done
        if not 0 < done <= total or (now - last < every_s and done < total):
            return
        last = now
        tail = f", {note}" if note else ""
        if done < total:
            left = (now - started) / done * (total - done)
            say(f"{title}: {100 * done / total:.0f}%, {_duration(left)} left{tail}")
        else:
            say(f"{title}: 100% in {_duration(now - started)}{tail}")

    return report


def _duration(seconds: float) -> str:
    """Return a time in the units that people would say it in.

    >>> _duration(59.6), _duration(125), _duration(7260)
    ('1 min', '2 min', '2 h 1 min')
    """
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Yield a Progress that draws a bar on the terminal behind stderr, one line high.

    Of work that ends in an error nothing stays: the message that follows says what happened.
    """
    from rich import progress as drawn
    from rich.console import Console
    from rich.table import Column

    console = Console(stderr=True)
    wide = console.width >= _WIDE
    note_column = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        drawn.TextColumn("{task.description}", markup=False),
        drawn.BarColumn(bar_width=20 if wide else 8),
        drawn.TextColumn("{task.percentage:>3.0f}%"),
        *([drawn.TimeElapsedColumn()] if wide else []),
        drawn.TextColumn("{task.fields[left]}"),
        drawn.TimeRemainingColumn(),
        drawn.TextColumn("{task.fields[note]}", markup=False, table_column=note_column),
    )
    with drawn.Progress(*columns, console=console, expand=True, transient=True) as shown:
        task = shown.add_task(title, total=None, left="", note="")
        before = 0.0

        def report(done: float, total: float, note: str = "") -> None:
            nonlocal before
            if done < before:  # the next stage begins
                shown.reset(task)
            before = done
            shown.update(task, completed=done, total=total, left="left", note=spelt_out(note))

        yield report
        shown.update(task, note="")
        shown.live.transient = False
