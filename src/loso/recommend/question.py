"""What is asked of a clip: which score, how much of it, how sure, and at what cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from loso.errors import BadSettings
from loso.metrics.pooling import CLIP_POOLS
from loso.recommend.segments import Sampling
from loso.spelling import did_you_mean

__all__ = ["MAX_ENCODES", "Question"]

MAX_ENCODES: Final = 6
"""Of whole steps, settles all but a clip in a hundred; bisection of 52 settings takes as many."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The targets that a clip's pooled score is to meet, and what may be spent to find out."""

    targets: tuple[float, ...]
    """From the highest to the lowest."""
    pool: str = "mean"
    max_encodes: int = MAX_ENCODES
    """Settings that are coded anew for one target; those that are stored already cost nothing."""
    step: float | None = None
    """Between settings; 1, or 0.25 for encoders that take fractions, unless given."""
    sampling: Sampling = field(default_factory=Sampling)
    confidence: float | None = None
    """With which an estimate keeps its promise; what the sources support well unless given."""

    def __post_init__(self) -> None:
        for target in self.targets:
            if not math.isfinite(target):
                raise BadSettings("--target must be a number", found=f"{target}")
        if self.pool not in CLIP_POOLS:
            raise BadSettings(
                "no such way to pool the frames of a clip",
                where="--pool",
                expected=f"one of {' '.join(CLIP_POOLS)}",
                found=repr(self.pool),
                fix=did_you_mean(self.pool, CLIP_POOLS),
            )
        if self.confidence is not None and not 0.0 < self.confidence < 1.0:
            raise BadSettings("--confidence must lie between 0 and 1", found=f"{self.confidence:g}")
        if self.max_encodes < 1:
            raise BadSettings("--max-encodes must be at least 1", found=f"{self.max_encodes}")
