"""What the commands share: results to stdout, progress and hints to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loso.progress import Progress

__all__ = ["hint", "print_json", "show_progress", "warn_all"]


def print_json(value: Any) -> None:
    """Print one JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(value, sort_keys=True, allow_nan=False) + "\n")


def hint(text: str) -> None:
    """Print a line for people on stderr."""
    sys.stderr.write(text + "\n")


def warn_all(warnings: tuple[str, ...]) -> None:
    """Print each warning on its own line of stderr."""
    for warning in warnings:
        hint(f"warning: {warning}")


@contextmanager
def show_progress(title: str) -> Iterator[Progress]:
    """Yield a Progress that draws a bar with time left on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        with _bar(title) as progress:
            yield progress
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.percentage:>3.0f}%"),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("left"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}", markup=False),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, note="")

        def report(done: float, total: float, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield report


def _lines(title: str, every_s: float = 10.0) -> Progress:
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
        left = (now - started) / done * (total - done)
        tail = f", {note}" if note else ""
        hint(f"{title}: {100 * done / total:.0f}%, {left:.0f} s left{tail}")

    return report
