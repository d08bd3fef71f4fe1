"""What a probe is worth: the score that is asked for, from what was measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from loso.corpus.plan import Cell
from loso.errors import BadSettings
from loso.metrics.pooling import pool_scores
from loso.recommend.bound import Bound
from loso.recommend.curve import Curve
from loso.schema import VMAF_RANGE
from loso.spelling import did_you_mean
from loso.video.clips import Clip
from loso.video.measure import Measurement

if TYPE_CHECKING:
    from loso.recommend.grids import RunGrounds

__all__ = ["METRICS", "PLACES", "Judge", "MetricJudge", "Score"]


@dataclass(frozen=True)
class Score:
    """A clip's score, and what the judge itself stands for: less where it does not measure."""

    value: float
    lower: float
    remarks: tuple[str, ...] = ()
    """What a user should know of it."""


class Judge(ABC):
    """Scores one encode of a clip, whole or in segments."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the score is called."""

    @property
    def beside(self) -> str:
        """The metric to measure beside VMAF, one of `video.measure.OTHER_METRICS`."""
        return ""

    @property
    @abstractmethod
    def digits(self) -> int:
        """Digits after the point that say something of a score."""

    @property
    @abstractmethod
    def prior(self) -> Curve:
        """A usual score over 0..1 of an encoder's scale, where the search begins."""

    @property
    @abstractmethod
    def evidence(self) -> str:
        """What the lower end of a whole clip's score rests on."""

    @property
    @abstractmethod
    def level(self) -> float | None:
        """With which the judge's own lower end holds; None where the score is measured."""

    @property
    def measures(self) -> bool:
        """Whether a whole clip's score is measured, and nothing about it is estimated."""
        return self.level is None and self.grounds is None and self.promises

    @property
    def grounds(self) -> RunGrounds | None:
        """How choices by this judge went on known sources, where that bounds them."""
        return None

    @property
    def promises(self) -> bool:
        """Whether the lower end of a score means anything."""
        return True

    def bound(
        self, clip: Clip, encoder: str, target: float, confidence: float | None
    ) -> Bound | None:
        """Return how far a choice on a clip stays below its scores, beyond their lower ends."""
        if self.grounds is None:
            return None
        return self.grounds.bound(encoder, target, confidence, without=clip.src)

    @abstractmethod
    def score(self, measured: Sequence[tuple[Cell, Measurement]], *, is_cut: bool) -> Score:
        """Return the clip's score from its measured segments, or from the one that is all of it."""

    @abstractmethod
    def refuse_target(self, target: float) -> None:
        """Refuse, as BadSettings, a target that no score can be."""

    def text(self, score: float) -> str:
        """Return a score as people are told it."""
        return f"{score:.{self.digits}f}"


@dataclass(frozen=True, kw_only=True)
class _Metric:
    """What is known of a metric before anything is measured."""

    most: float
    """Its highest value; 0 is the lowest, and no target."""
    digits: int
    usual: tuple[float, ...]
    """Of x264, x265 and SVT-AV1 at 720p and above, roughly, at `PLACES` of their scales: it only
    says where to look first."""


PLACES: Final = (0.0, 0.3, 0.45, 0.55, 0.65, 0.78, 0.88, 1.0)

METRICS: Final = {
    "vmaf": _Metric(
        most=VMAF_RANGE[1], digits=2, usual=(100.0, 98.5, 95.0, 90.0, 80.0, 60.0, 40.0, 20.0)
    ),
    # libvmaf caps PSNR at 6 dB a bit and 12 dB more: 60 for 8 bits, 72 for 10.
    "psnr": _Metric(most=72.0, digits=2, usual=(55.0, 46.0, 42.0, 38.5, 35.0, 31.0, 28.0, 24.0)),
    "ssim": _Metric(most=1.0, digits=4, usual=(0.999, 0.99, 0.975, 0.95, 0.91, 0.82, 0.7, 0.55)),
}
"""What libvmaf measures: VMAF, and of the luma PSNR in dB and SSIM."""


@dataclass(frozen=True)
class MetricJudge(Judge):
    """A metric of `METRICS` that every probe measures, pooled as `metrics.pooling` does."""

    metric: str
    pool: str

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise BadSettings(
                "no such metric",
                where="--metric",
                expected=f"one of {' '.join(METRICS)}",
                found=repr(self.metric),
                fix=did_you_mean(self.metric, METRICS),
            )

    @property
    def name(self) -> str:
        """What the score is called."""
        return self.metric

    @property
    def beside(self) -> str:
        """The metric to measure beside VMAF."""
        return "" if self.metric == "vmaf" else self.metric

    @property
    def digits(self) -> int:
        """Digits after the point that say something."""
        return METRICS[self.metric].digits

    @property
    def prior(self) -> Curve:
        """A usual score over 0..1 of an encoder's scale, where the search begins."""
        return Curve(np.array(PLACES), np.array(METRICS[self.metric].usual))

    @property
    def evidence(self) -> str:
        """The measurement."""
        return "measured on the whole clip"

    @property
    def level(self) -> float | None:
        """None: it is measured."""
        return None

    def score(self, measured: Sequence[tuple[Cell, Measurement]], *, is_cut: bool) -> Score:
        """Return the pooled score of all frames.

        The first of each segment does not count: it has no motion before it, which lowers VMAF, and
        it is coded as a key frame, which few frames of the whole clip are.
        """
        first = 1 if is_cut else 0
        frames = [score for _, each in measured for score in self._frames(each)[first:]]
        pooled = float(pool_scores(frames, np.zeros(len(frames)))[self.pool][0])
        return Score(pooled, pooled)

    def _frames(self, measured: Measurement) -> Sequence[float]:
        return measured.vmaf if self.metric == "vmaf" else measured.features[self.metric]

    def refuse_target(self, target: float) -> None:
        """Refuse, as BadSettings, a target outside of the metric's range."""
        most = METRICS[self.metric].most
        if not 0.0 < target <= most:
            raise BadSettings(
                f"no clip can be held to that {self.metric}",
                where="--target",
                expected=f"above 0, at most {most:g}",
                found=f"{target:g}",
            )
