"""How long work reports that it advances, without knowing who watches."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "of_stage", "silent"]


class Progress(Protocol):
    """Called as work advances; it may be called from any thread."""

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Say that `done` of `total` units are finished; `note` is shown beside them."""


def of_stage(stage: str, progress: Progress) -> Progress:
    """Return what reports to `progress`, its notes led by the name of the stage."""

    def report(done: float, total: float, note: str = "") -> None:
        progress(done, total, f"{stage}, {note}" if note else stage)

    return report


def silent(done: float, total: float, note: str = "") -> None:
    """Report to nobody."""
