"""Which parts of a clip are coded in its place: some of each stretch, chosen by content."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loso.errors import BadSettings
from loso.video.clips import Clip
from loso.video.scan import Scan

__all__ = ["Sampling", "Segment", "Window", "choose_segments", "cut_out", "seek_to"]

_NEAR: Final = 0.05
"""By which a window that starts with a cut may be further from its stretch, in the logarithm."""

_SHORTEST: Final = 0.25
"""Of an even stretch: a shorter one is not worth an encode of its own."""

_LEAST, _MOST = 4, 16


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How much of a long clip is coded: segments, of `seconds` on average, more of longer clips.

    The number is the square root of the clip's seconds, 4 at least and 16 at most. A clip of which
    that would be more than half is coded whole, and so is every clip where `number` is 0.
    """

    seconds: float = 2.0
    number: int | None = None

    def __post_init__(self) -> None:
        if not 0.2 <= self.seconds <= 60:
            raise BadSettings(
                "--segment-seconds is out of its range",
                expected="0.2..60",
                found=f"{self.seconds:g}",
            )
        if self.number is not None and self.number < 0:
            raise BadSettings("--segments must not be negative", found=f"{self.number}")

    def counts(self, clip: Clip) -> tuple[int, int]:
        """Return how many segments stand for `clip`, none where it is coded whole; mean frames."""
        length = max(round(self.seconds * clip.fps), 2)
        number = self.number
        if number is None:
            number = min(max(round(math.sqrt(clip.frames / clip.fps)), _LEAST), _MOST)
        return (number, length) if 2 * number * length <= clip.frames else (0, length)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a clip, from frame `first` on, as a clip of its own: the same file, cut."""

    first: int
    clip: Clip


class Window(NamedTuple):
    """So many frames of a clip, from `first` on."""

    first: int
    frames: int


def choose_segments(scan: Scan, number: int, length: int) -> tuple[Window, ...]:
    """Return `number` segments, in their order, of `length` frames on average.

    The clip is divided into as many stretches, at cuts where it has some, and each segment is as
    long as its stretch in proportion: a stratified sample with proportional allocation, so that
    all frames of it weigh the same. Of a stretch that window is taken which moves as the whole
    stretch does (mean of the logarithm). One that does so nearly as well and starts with a cut is
    taken instead: an encoder begins anew there anyway.
    """
    moving = np.log1p(scan.activity)
    total = np.concatenate([[0.0], np.cumsum(moving)])
    coded = number * length / len(moving)
    chosen = []
    for low, high in pairwise(_stretches(scan.is_cut, number)):
        frames = max(round(coded * (high - low)), 2)
        starts = np.arange(low, high - frames + 1)
        inside = (total[starts + frames] - total[starts]) / frames
        off = np.abs(inside - (total[high] - total[low]) / (high - low))
        good = starts[off <= off.min() + _NEAR]
        cuts = good[scan.is_cut[good]]
        first = cuts[0] if len(cuts) else starts[np.argmin(off)]
        chosen.append(Window(int(first), frames))
    return tuple(chosen)


def _stretches(is_cut: NDArray[np.bool_], number: int) -> list[int]:
    """Return the frames at which `number` stretches of a clip begin, and its end.

    They begin at cuts. Where there are too many, or one is too short, the shortest joins the
    shorter of its neighbours; where there are too few, the longest is halved.
    """
    frames = len(is_cut)
    edges = [0, *(at for at in np.flatnonzero(is_cut).tolist() if at), frames]
    least = max(_SHORTEST * frames / number, 2.0)
    while len(edges) > 2:
        lengths = np.diff(edges)
        if len(lengths) <= number and lengths.min() >= least:
            break
        at = int(np.argmin(lengths))
        last = at == len(lengths) - 1
        joins_next = at == 0 or (not last and lengths[at + 1] < lengths[at - 1])
        del edges[at + 1 if joins_next else at]
    while len(edges) <= number:
        at = int(np.argmax(np.diff(edges)))
        edges.insert(at + 1, (edges[at] + edges[at + 1]) // 2)
    return edges


def cut_out(clip: Clip, windows: Sequence[tuple[int, int]]) -> tuple[Segment, ...]:
    """Return windows (first frame, frames) of a clip, each as a clip of its own."""
    whole = f"trim=end_frame={clip.frames}"
    return tuple(
        Segment(
            first=first,
            clip=replace(
                clip,
                frames=frames,
                filters=tuple(
                    f"trim=start_frame={first}:end_frame={first + frames}" if one == whole else one
                    for one in clip.filters
                ),
            ),
        )
        for first, frames in windows
    )


def seek_to(segment: Segment) -> Segment | None:
    """Return the segment as a seek reaches it, None where all frames before it are decoded anyway.

    A long clip's segments would otherwise decode it several times over. Whether these are the same
    frames has to be seen: seeking is not exact everywhere.
    """
    clip, first = segment.clip, segment.first
    cut = f"trim=start_frame={first}:end_frame={first + clip.frames}"
    if first == 0 or clip.filters[0] != cut:
        return None
    # Between two frames, so that no rounding of a timestamp decides.
    begins = float((first - Fraction(1, 2)) / clip.fps)
    return replace(
        segment,
        clip=replace(
            clip,
            input=("-ss", f"{begins:.6f}", *clip.input),
            filters=(f"trim=end_frame={clip.frames}", *clip.filters[1:]),
        ),
    )
