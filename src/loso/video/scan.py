"""A look at every frame of a clip: how much moves, where a scene begins, which frame it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loso.errors import CannotRun
from loso.video.allowed import guard
from loso.video.clips import Clip
from loso.video.ffmpeg import FfmpegSession

__all__ = ["Scan", "scan_clip"]

_SCAN, _FRAMES = "scan.txt", "frames.txt"
_SCAN_HEIGHT: Final = 144
"""Enough for cuts and motion, and little to compute."""

_DIGITS: Final = 8
"""Of a frame's hash: a segment has many frames."""

_CUT: Final = 10.0
"""Of scdet's score, 0..100: its own default."""


@dataclass(frozen=True, eq=False)
class Scan:
    """What a look at every frame shows: (frames,) mean difference to the one before, and cuts.

    `frames` tells frames from others: the start of a hash of each, as small as it was looked at.
    """

    activity: NDArray[np.float64]
    is_cut: NDArray[np.bool_]
    frames: tuple[str, ...] = ()


def scan_clip(clip: Clip, session: FfmpegSession, *, folder: Path, timeout_s: float) -> Scan:
    """Return what a clip shows after decoding it once, with `folder` for ffmpeg's logs."""
    small = f"scale=-2:{min(_SCAN_HEIGHT, clip.height)}:flags=fast_bilinear,format=gray"
    chain = (*clip.filters, small, f"scdet=threshold={_CUT:g}", f"metadata=print:file={_SCAN}")
    looked_at = ",".join((*chain, *clip.timing))
    listed = ("-map", "0:V:0", "-vf", looked_at, "-fps_mode", "passthrough", "-f", "framemd5")
    session.run(
        (*guard(session), *clip.input, *listed, _FRAMES), folder=folder, timeout_s=timeout_s
    )
    text = (folder / _SCAN).read_text(encoding="utf-8", errors="replace")
    found = [
        [float(value) for value in re.findall(rf"lavfi\.scd\.{key}=([\d.]+)", text)]
        for key in ("mafd", "score")
    ]
    lines = (folder / _FRAMES).read_text(encoding="utf-8", errors="replace").splitlines()
    hashes = [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]
    if not len(found[0]) == len(found[1]) == len(hashes) == clip.frames:
        raise CannotRun(
            "not every frame was looked at",
            where=str(clip.path),
            expected=f"{clip.frames}",
            found=f"{len(found[0])}",
        )
    activity, score = map(np.array, found)
    return Scan(activity, score >= _CUT, tuple(each[:_DIGITS] for each in hashes))
