"""The settings that an encoder can be given, as steps from its best to its cheapest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loso.errors import BadSettings
from loso.video.encoders import Encoder, Rate

__all__ = ["FINE_STEP", "Scale", "scale_of"]

FINE_STEP: Final = 0.25
"""Of encoders that take fractions: about 3 % of bitrate."""

_DIGITS: Final = 9

_HAIR: Final = 1e-6
"""Of a step: a setting that is nearer to the last is the last."""

_LEAST: Final = {"libsvtav1": 4}
"""The best setting that is asked for, where those beyond it cannot be relied on: at CRF 1 to 3
SVT-AV1 (ffmpeg n9.0.2) wrote streams of half of twelve clips that decode to something else."""

_SPREADS: Final = {
    "libx264": ((0.0, 1.0), (0.0, 1.0)),
    "libsvtav1": ((0.0, 0.31, 0.63, 0.82, 0.97, 1.0), (0.0, 0.35, 0.47, 0.57, 0.67, 0.69)),
    "libvpx-vp9": ((0.0, 0.32, 0.67, 0.86, 0.98, 1.0), (0.0, 0.36, 0.53, 0.65, 0.74, 0.75)),
    "libvvenc": ((0.0, 0.35, 0.51, 0.62, 0.73, 1.0), (0.0, 0.37, 0.57, 0.68, 0.81, 1.0)),
}
"""Places on an encoder's own scale, and where x264 scores the same: by the median VMAF over the
demo corpus's ten sources, 640x360. x265 spreads as x264 does. It only says where to look first."""


@dataclass(frozen=True, eq=False)
class Scale:
    """An encoder's settings, best first; `cq` (settings,) rises, whatever the encoder's scale."""

    encoder: Encoder
    rates: tuple[Rate, ...]

    def __len__(self) -> int:
        return len(self.rates)

    @property
    def cq(self) -> NDArray[np.float64]:
        """The number of each setting that a corpus records: larger is cheaper."""
        return np.array([self.encoder.cq(rate) for rate in self.rates], dtype=np.float64)

    @property
    def usual_places(self) -> NDArray[np.float64]:
        """Where each setting stands between 0, the best, and 1, as x264 spreads quality."""
        cq = self.cq
        place = np.interp(cq, cq[[0, -1]], [0.0, 1.0])
        own, usual = _SPREADS.get(self.encoder.name, _SPREADS["libx264"])
        return np.interp(place, own, usual)


def scale_of(encoder: Encoder, step: float | None = None) -> Scale:
    """Return settings of `encoder` that stand `step` apart: 1, or 0.25 where it takes fractions.

    Counted from the best. The cheapest of all ends them, less than a step away where the step does
    not divide the scale. BadSettings for a step that it cannot take.

    >>> from loso.video.encoders import ENCODERS
    >>> [rate.number for rate in scale_of(ENCODERS["libx264"]).rates[:3]]
    ['0', '0.25', '0.5']
    """
    low, high = encoder.quality_range
    low = _LEAST.get(encoder.name, low)
    if step is None:
        step = 1.0 if encoder.whole_quality else FINE_STEP
    if not 0.01 <= step <= high - low or (encoder.whole_quality and step != int(step)):
        whole = "a whole number" if encoder.whole_quality else "a number"
        least = "1" if encoder.whole_quality else "0.01"
        raise BadSettings(
            "--step does not fit this encoder",
            where=encoder.name,
            expected=f"{whole} in {least}..{high - low}",
            found=f"{step:g}",
        )
    best, cheapest, way = (high, low, -1) if encoder.reversed_quality else (low, high, 1)
    before_the_end = math.ceil((high - low) / step - _HAIR)
    values = [round(best + way * step * n, _DIGITS) for n in range(before_the_end)]
    return Scale(encoder, tuple(Rate("quality", float(value)) for value in (*values, cheapest)))
