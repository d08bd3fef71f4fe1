"""A clip is coded with the answer, whole, and what came of it is held against the promise."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loso.corpus.plan import Cell
from loso.errors import BadClip, BadSettings
from loso.files import refuse_place_of, write_atomic
from loso.recommend.answer import Answer, Coding
from loso.recommend.desk import Desk
from loso.recommend.judge import Judge, Score
from loso.video.ffmpeg import FfmpegSession
from loso.video.measure import CODED, Measurement, measure

__all__ = ["Applied", "apply_answer", "file_of"]

_CONTAINERS: Final = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4", ".webm": "webm"}
"""ffmpeg's muxer by the ending of a name."""


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The coded clip, and what it scores as a whole."""

    path: Path
    score: Score
    bitrate_kbps: float
    target: float
    held: bool
    """Whether it meets the target, as promised."""


def file_of(out: Path, clip: Path, read: Sequence[Path], *, alone: bool) -> Path:
    """Return where a coded clip goes: to `out`, or into that folder where it is not `alone`.

    BadSettings for a name that no container has, for a folder where a file is due and the other way
    round, and for a clip among those that are `read`.
    """
    if not alone:
        if out.suffix.lower() in _CONTAINERS or (out.exists() and not out.is_dir()):
            raise BadSettings(
                "of several clips it is a folder",
                where="--apply",
                expected="the name of a folder",
                found=str(out),
            )
        out /= f"{clip.stem}.mkv"
    if out.suffix.lower() not in _CONTAINERS:
        raise BadSettings(
            "not the name of a video file",
            where="--apply",
            expected=f"a name that ends in {', '.join(_CONTAINERS)}",
            found=out.name,
        )
    if out.is_dir():
        raise BadSettings("is a folder", where=f"--apply {out}", expected="a file")
    clips = dict.fromkeys(read, "a clip") | {clip: "the clip"}
    refuse_place_of(clips, out, option="--apply", fix="give the coded clip another name")
    return out


def apply_answer(desk: Desk, coding: Coding, answer: Answer, judge: Judge, out: Path) -> Applied:
    """Write the clip, coded as answered and without its sound, to `out`; return what it scores.

    A reader sees the whole file or none. CannotRun where ffmpeg fails, BadClip where the clip
    changed meanwhile; then nothing is written.
    """
    if answer.chosen is None:
        raise ValueError("no setting was chosen")
    cell = desk.cell(coding.clip, coding.choice, answer.chosen.rate, coding.height)
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
    score = judge.score([(cell, measured)])
    return Applied(
        path=out,
        score=score,
        bitrate_kbps=_kbps(cell, measured),
        target=answer.target,
        held=score.lower >= answer.target,
    )


def _kbps(cell: Cell, measured: Measurement) -> float:
    seconds = cell.clip.frames / cell.clip.fps
    return float(sum(measured.packet_bytes) * 8 / seconds) / 1000
