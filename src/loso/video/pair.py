"""Two videos that exist already: the six features of every frame, and how one of them is coded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

from loso.errors import BadClip
from loso.video.allowed import guard
from loso.video.clips import Clip, ClipSettings, open_clip
from loso.video.ffmpeg import Ffmpeg, FfmpegSession

# What a corpus is measured with, so that a model meets the features that it was trained on.
from loso.video.measure import VmafModel, libvmaf_filter, read_scores, resize_filter

__all__ = ["Pair", "measure_pair"]

_ANY_RATE = Fraction(25)
"""For streams that carry none: frames meet by number, and no feature knows of time."""


_PACKETS = "packets.bin"


@dataclass(frozen=True)
class Pair:
    """Each canonical feature by frame, and what the distorted video tells of itself.

    `width` and `height` are those it was coded at. `fps` is None where it carries no rate,
    `coded_bytes` (of all its packets, the container not counted) where it is raw.
    """

    features: dict[str, tuple[float, ...]]
    frames: int
    width: int
    height: int
    fps: float | None
    coded_bytes: int | None


def measure_pair(
    reference: Path,
    distorted: Path,
    ffmpeg: Ffmpeg,
    *,
    settings: ClipSettings | None = None,
    timeout_s: float = 3600.0,
) -> Pair:
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
        only = guard(session)
        session.run(_command(*opened, only=only), folder=Path(folder), timeout_s=timeout_s)
        _, scores = read_scores(Path(folder) / "scores.json")
        coded_bytes = None
        if distorted.suffix.lower() != ".yuv":
            copy = ("-map", "0:V:0", "-c", "copy", "-f", "data", _PACKETS)
            session.run((*only, *opened[1].input, *copy), folder=Path(folder), timeout_s=timeout_s)
            coded_bytes = (Path(folder) / _PACKETS).stat().st_size
    for clip in opened:
        if not clip.unchanged():
            raise BadClip("changed while it was measured", where=str(clip.path))
        _require_count(clip, len(scores["vmaf"]))
    scores.pop("vmaf")
    clip = opened[1]
    width, height = clip.decoded.partition(" ")[0].split("x")
    return Pair(
        features=scores,
        frames=clip.frames,
        width=int(width),
        height=int(height),
        # The very object where nothing but the settings gave a rate.
        fps=None if clip.fps is settings.fps else float(clip.fps),
        coded_bytes=coded_bytes,
    )


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


def _command(reference: Clip, distorted: Clip, *, only: tuple[str, str]) -> tuple[str, ...]:
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
    opening = (*only, *distorted.input, *only, *reference.input)
    return (*opening, "-filter_complex", graph, *nowhere)
