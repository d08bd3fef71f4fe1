"""A clip is coded with the answer, whole, and what came of it is held against the promise."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from loso.corpus.plan import Cell
from loso.errors import BadClip, BadSettings
from loso.files import refuse_place_of, write_atomic
from loso.recommend.answer import Answer, Coding, named
from loso.recommend.desk import Desk
from loso.recommend.judge import Judge, Score
from loso.video.clips import Clip, identity_of
from loso.video.encoders import Encoder
from loso.video.ffmpeg import FfmpegSession
from loso.video.measure import CODED, Measurement, measure

__all__ = ["Applied", "apply_answer", "file_of"]

_TAKES: Final = {".mov": {"h264", "hevc"}, ".webm": {"av1", "vp9"}}
"""Codecs of the containers that do not take all of them."""

_CONTAINERS: Final = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4", ".webm": "webm"}
"""ffmpeg's muxer by the ending of a name."""


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The coded clip, and what it scores as a whole."""

    path: Path
    score: Score
    lower: float
    """What of it is promised."""
    bitrate_kbps: float
    target: float
    held: bool
    """Whether it meets the target, as promised."""


def file_of(
    out: Path, clip: Path, read: Sequence[Path], encoders: Sequence[Encoder], *, alone: bool
) -> Path:
    """Return where a coded clip goes: to `out`, or into that folder where it is not `alone`.

    BadSettings for a name that no container has, or one that does not take what `encoders` write,
    for a folder where a file is due and the other way round, and for a clip among those `read`.
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
    for encoder in encoders:
        if encoder.codec not in _TAKES.get(out.suffix.lower(), {encoder.codec}):
            raise BadSettings(
                f"{out.suffix} does not take what {encoder.name} writes",
                where="--apply",
                found=out.name,
                fix="give it a name that ends in .mkv",
            )
    if out.is_dir():
        raise BadSettings("is a folder", where=f"--apply {out}", expected="a file")
    clips = dict.fromkeys(read, "a clip") | {clip: "the clip"}
    refuse_place_of(clips, out, option="--apply", fix="give the coded clip another name")
    return out


def apply_answer(
    desk: Desk,
    coding: Coding,
    answer: Answer,
    judge: Judge,
    out: Path,
    *,
    confidence: float | None = None,
) -> Applied:
    """Write the clip, coded as answered and without its sound, to `out`; return what it scores.

    Nothing is estimated from segments any more; what a judge that is no measure is bound by, with
    that `confidence`, still counts.
    A reader sees the whole file or none. CannotRun where ffmpeg fails, BadClip where the clip
    changed meanwhile; then nothing is written.
    """
    if answer.chosen is None:
        raise ValueError("no setting was chosen")
    clip = _as_seen_here(coding.clip)
    cell = desk.cell(clip, coding.choice, answer.chosen.rate, coding.height)
    bound = judge.bound(clip, coding.choice.encoder.name, answer.target, confidence)
    with desk.store.work_folder() as folder:
        with (
            FfmpegSession(desk.ffmpeg) as session,
            named(clip, coding.choice, answer.chosen.rate),
        ):
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
    score = judge.score([(cell, measured)], is_cut=False)
    lower = score.lower - (bound.margin if bound else 0.0)
    return Applied(
        path=out,
        score=score,
        lower=lower,
        bitrate_kbps=_kbps(cell, measured),
        target=answer.target,
        held=lower >= answer.target,
    )


def _as_seen_here(clip: Clip) -> Clip:
    """Return a clip that a worker may have opened, with the identity of the file as it lies here.

    Device and inode differ between machines, size and time do not: BadClip where they do.
    """
    own = identity_of(clip.path)
    if not own or own[2:] != clip.identity[2:]:
        raise BadClip(
            "is not the file that was looked at before", where=str(clip.path), fix="run this again"
        )
    return replace(clip, identity=own)


def _kbps(cell: Cell, measured: Measurement) -> float:
    seconds = cell.clip.frames / cell.clip.fps
    return float(sum(measured.packet_bytes) * 8 / seconds) / 1000
