"""A clip is coded with the answer, whole, and what came of it is held against the promise."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loso.corpus.plan import Cell
from loso.errors import BadClip, BadSettings
from loso.files import write_atomic
from loso.recommend.desk import Desk
from loso.recommend.judge import Judge
from loso.video.ffmpeg import FfmpegSession
from loso.video.measure import CODED, Measurement, measure

__all__ = ["Applied", "apply_answer", "refuse_file"]

_CONTAINERS: Final = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4", ".webm": "webm"}
"""ffmpeg's muxer by the ending of a name."""


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The coded clip, and what it scores as a whole."""

    path: Path
    score: float
    bitrate_kbps: float
    held: bool
    """Whether it meets the target, as promised."""


def refuse_file(out: Path, clip: Path) -> None:
    """Refuse, as BadSettings, a name that no container has, and that of the clip itself."""
    if out.suffix.lower() not in _CONTAINERS:
        raise BadSettings(
            "not the name of a video file",
            where="--apply",
            expected=f"a name that ends in {', '.join(_CONTAINERS)}",
            found=out.name,
        )
    if out.is_dir():
        raise BadSettings("is a folder", where=f"--apply {out}", expected="a file")
    if out.resolve() == clip.resolve() or (out.exists() and clip.exists() and out.samefile(clip)):
        raise BadSettings(
            "would take the place of the clip",
            where="--apply",
            found=str(out),
            fix="give the coded clip another name",
        )


def apply_answer(desk: Desk, cell: Cell, judge: Judge, target: float, out: Path) -> Applied:
    """Write the clip, coded as `cell` says and without its sound, to `out`; return what it scores.

    A reader sees the whole file or none. CannotRun where ffmpeg fails, BadClip where the clip
    changed meanwhile; then nothing is written.
    """
    with desk.store.work_folder() as folder:
        with FfmpegSession(desk.ffmpeg) as session:
            measured = measure(
                cell.clip,
                cell.encode,
                desk.settings.model,
                session,
                folder=folder,
                timeout_s=desk.settings.timeout_s,
                two_step=True,
                container=_CONTAINERS[out.suffix.lower()],
            )
        if not cell.clip.unchanged():
            raise BadClip(
                "changed while it was coded", where=str(cell.clip.path), fix="run this again"
            )
        with write_atomic(out) as temporary:
            shutil.copyfile(folder / CODED, temporary)
    score = judge.score([measured])
    return Applied(
        path=out,
        score=score,
        bitrate_kbps=_kbps(cell, measured),
        held=score >= target,
    )


def _kbps(cell: Cell, measured: Measurement) -> float:
    seconds = cell.clip.frames / cell.clip.fps
    return float(sum(measured.packet_bytes) * 8 / seconds) / 1000
