"""Two videos that exist already: the six features of every frame of one against the other."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from loso.errors import BadClip
from loso.video.clips import Clip, ClipSettings, open_clip
from loso.video.ffmpeg import Ffmpeg, FfmpegSession

# What a corpus is measured with, so that a model meets the features that it was trained on.
from loso.video.measure import VmafModel, libvmaf_filter, read_scores, resize_filter

__all__ = ["measure_pair"]

_ANY_RATE = Fraction(25)
"""For streams that carry none: frames meet by number, and no feature knows of time."""


def measure_pair(
    reference: Path,
    distorted: Path,
    ffmpeg: Ffmpeg,
    *,
    settings: ClipSettings | None = None,
    timeout_s: float = 3600.0,
) -> dict[str, tuple[float, ...]]:
    """Return each canonical feature by frame, the distorted video at the reference's size.

    `settings` says what raw YUV is. BadClip where a video cannot be decoded and where the two do
    not have the same number of frames: then some score would compare two different moments.
    """
    settings = settings or ClipSettings()
    settings = replace(settings, fps=settings.fps or _ANY_RATE)
    with FfmpegSession(ffmpeg) as session, TemporaryDirectory() as folder:
        opened = [
            open_clip(path, settings, session, timeout_s=timeout_s)
            for path in (reference, distorted)
        ]
        _require_equal_counts(*opened)
        session.run(_command(*opened), folder=Path(folder), timeout_s=timeout_s)
        _, scores = read_scores(Path(folder) / "scores.json")
    for clip in opened:
        if not clip.unchanged():
            raise BadClip("changed while it was measured", where=str(clip.path))
        _require_count(clip, len(scores["vmaf"]))
    scores.pop("vmaf")
    return scores


def _require_equal_counts(reference: Clip, distorted: Clip) -> None:
    if reference.frames != distorted.frames:
        raise BadClip(
            "another number of frames than the reference",
            where=str(distorted.path),
            expected=f"{reference.frames}",
            found=f"{distorted.frames}",
            fix="cut both to the same frames first",
        )


def _require_count(clip: Clip, scored: int) -> None:
    if clip.frames != scored:
        raise BadClip(
            "not every frame was scored",
            where=str(clip.path),
            expected=f"{clip.frames}",
            found=f"{scored}",
        )


def _command(reference: Clip, distorted: Clip) -> tuple[str, ...]:
    timing = ",".join(reference.timing)
    resize = resize_filter(
        reference.width, reference.height, distorted.pixel_format, reference.pixel_format
    )
    graph = (
        f"[0:V:0]{','.join(distorted.filters)},{resize},{timing}[distorted];"
        f"[1:V:0]{','.join(reference.filters)},{timing}[reference];"
        f"[distorted][reference]{libvmaf_filter(VmafModel())}[scored]"
    )
    nowhere = ("-map", "[scored]", "-f", "null", "-")
    return (*distorted.input, *reference.input, "-filter_complex", graph, *nowhere)
