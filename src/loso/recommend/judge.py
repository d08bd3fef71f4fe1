"""What a probe is worth: the score that is asked for, from what was measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from loso.corpus.plan import Cell
from loso.errors import BadSettings
from loso.metrics.pooling import pool_scores
from loso.recommend.curve import Curve
from loso.schema import VMAF_RANGE
from loso.video.measure import Measurement

__all__ = ["Judge", "Score", "VmafJudge"]


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

    @abstractmethod
    def score(self, measured: Sequence[tuple[Cell, Measurement]]) -> Score:
        """Return the clip's score from its measured segments, or from the one that is all of it."""

    @abstractmethod
    def refuse_target(self, target: float) -> None:
        """Refuse, as BadSettings, a target that no score can be."""


_USUAL_VMAF: Final = (
    (0.0, 100.0),
    (0.3, 98.5),
    (0.45, 95.0),
    (0.55, 90.0),
    (0.65, 80.0),
    (0.78, 60.0),
    (0.88, 40.0),
    (1.0, 20.0),
)
"""Of x264, x265 and SVT-AV1 at 720p and above, roughly: it only says where to look first."""


@dataclass(frozen=True)
class VmafJudge(Judge):
    """VMAF, pooled over frames as `metrics.pooling` does."""

    pool: str

    @property
    def name(self) -> str:
        """What the score is called."""
        return "vmaf"

    @property
    def prior(self) -> Curve:
        """A usual score over 0..1 of an encoder's scale, where the search begins."""
        places, scores = np.array(_USUAL_VMAF).T
        return Curve(places, scores)

    @property
    def evidence(self) -> str:
        """The measurement."""
        return "measured on the whole clip"

    @property
    def level(self) -> float | None:
        """None: it is measured."""
        return None

    def score(self, measured: Sequence[tuple[Cell, Measurement]]) -> Score:
        """Return the pooled VMAF of all frames.

        The first of each segment does not count: it has no motion before it, which lowers VMAF.
        """
        first = 1 if len(measured) > 1 else 0
        frames = [score for _, each in measured for score in each.vmaf[first:]]
        pooled = float(pool_scores(frames, np.zeros(len(frames)))[self.pool][0])
        return Score(pooled, pooled)

    def refuse_target(self, target: float) -> None:
        """Refuse, as BadSettings, a target outside of VMAF's range."""
        low, high = VMAF_RANGE
        if not low < target <= high:
            raise BadSettings(
                "--target is no VMAF that a clip can be held to",
                expected=f"above {low:g}, at most {high:g}",
                found=f"{target:g}",
            )
