"""Which parts of a clip are coded in its place: seconds of each stretch, chosen by content."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Final

import numpy as np

from loso.errors import BadSettings
from loso.video.clips import Clip
from loso.video.scan import Scan

__all__ = ["Sampling", "Segment", "choose_segments", "cut_out", "seek_to"]

_NEAR: Final = 0.05
"""By which a window that starts with a cut may be further from its stretch, in the logarithm."""

_LEAST, _MOST = 4, 16


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How much of a long clip is coded: segments of `seconds`, their number by the clip's length.

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
        """Return how many segments stand for `clip`, and their frames; none where all of it is."""
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


def choose_segments(scan: Scan, number: int, length: int) -> tuple[int, ...]:
    """Return the first frame of each of `number` segments, in their order.

    The clip is divided into as many stretches of one length, so that each segment stands for as
    much of it. Of a stretch that window is taken which moves as the whole stretch does (mean of the
    logarithm). One that does so nearly as well and starts with a cut is taken instead: an encoder
    begins anew there anyway.
    """
    moving = np.log1p(scan.activity)
    total = np.concatenate([[0.0], np.cumsum(moving)])
    edges = [len(moving) * part // number for part in range(number + 1)]
    chosen = []
    for low, high in pairwise(edges):
        starts = np.arange(low, max(high - length, low) + 1)
        inside = (total[starts + length] - total[starts]) / length
        off = np.abs(inside - (total[high] - total[low]) / (high - low))
        good = starts[off <= off.min() + _NEAR]
        cuts = good[scan.is_cut[good]]
        chosen.append(int(cuts[0] if len(cuts) else starts[np.argmin(off)]))
    return tuple(chosen)


def cut_out(clip: Clip, firsts: Sequence[int], length: int) -> tuple[Segment, ...]:
    """Return segments of `length` frames, each as a clip of its own."""
    whole = f"trim=end_frame={clip.frames}"
    return tuple(
        Segment(
            first=first,
            clip=replace(
                clip,
                frames=length,
                filters=tuple(
                    f"trim=start_frame={first}:end_frame={first + length}" if one == whole else one
                    for one in clip.filters
                ),
            ),
        )
        for first in firsts
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
