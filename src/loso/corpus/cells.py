"""One cell measured and kept, wherever that is: on this machine, or on a worker of a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from loso.corpus.parts import Parts
from loso.corpus.plan import Cell
from loso.errors import BadClip, BadInput, CannotRun
from loso.video.clips import Clip
from loso.video.ffmpeg import FfmpegSession
from loso.video.measure import Measurement, VmafModel, measure

__all__ = ["Method", "measure_cell"]

ATTEMPTS: Final = 2
"""A failed cell is tried once more: drivers and memory have bad moments. All attempts share the
cell's time, so what was stopped for taking too long is not started again."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How the cells of one build are measured, ffmpeg apart."""

    model: VmafModel
    timeout_s: float
    two_step: bool


def measure_cell(
    mark: str, cell: Cell, method: Method, session: FfmpegSession, store: Parts
) -> None:
    """Measure a cell and keep it in `store` as `mark`; CannotRun where either fails.

    A part that cannot be saved fails its own cell: the others may be smaller, or the disk free by
    then. BadClip where the clip's file changed, BadSettings where the model's did: the part would
    hold other content than its name says.
    """
    measured = _measure(cell, method, session, store)
    try:
        store.save(mark, measured)
    except BadInput as refusal:
        raise CannotRun(refusal.problem, where=refusal.where) from None


def _measure(cell: Cell, method: Method, session: FfmpegSession, store: Parts) -> Measurement:
    """Return a cell's measurement, trying again after a failure that left the time for it."""
    started = time.monotonic()
    spent_s = 0.0
    attempt = 1
    while True:
        try:
            with store.work_folder() as folder, _unchanged(cell.clip):
                return measure(
                    cell.clip,
                    cell.encode,
                    method.model,
                    session,
                    folder=folder,
                    timeout_s=method.timeout_s - spent_s,
                    two_step=method.two_step,
                )
        except CannotRun:
            spent_s = time.monotonic() - started
            if attempt == ATTEMPTS or spent_s > method.timeout_s / ATTEMPTS:
                raise
        attempt += 1


@contextmanager
def _unchanged(clip: Clip) -> Iterator[None]:
    try:
        yield
    finally:
        if not clip.unchanged():
            raise BadClip(
                "changed while it was measured",
                where=str(clip.path),
                fix="leave it alone and run this again; what was finished before is kept",
            )
