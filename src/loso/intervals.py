"""Intervals that hold on sources nobody has seen: hierarchical conformal prediction.

Rows of one source resemble each other, so the unit of calibration is the source. Dunn, Wasserman
and Ramdas (arXiv 1809.07441); Lee, Barber and Willett (arXiv 2306.06342).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["POOLS", "Rule", "level_key"]

POOLS: Final = ("frame", "mean", "hmean", "p1", "p5")
"""What an interval is for: a frame's score, or a clip's scores pooled in one of four ways."""


class Rule(BaseModel):
    """How wide the intervals of one pool are: a quantile for each level, times what it scales.

    `absolute` means mu +- quantile, `scaled` mu +- quantile x (sigma + s0); sigma and s0 in the
    target's unit. Keys of `quantiles` are levels as `level_key` writes them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    form: Literal["absolute", "scaled"]
    s0: Annotated[float, Field(ge=0)]
    quantiles: dict[str, Annotated[float, Field(ge=0)]]

    def half_width(self, sigma: NDArray[np.float64], level: float) -> NDArray[np.float64]:
        """Return half the width of each interval, in the target's unit; KeyError without level."""
        quantile = self.quantiles[level_key(level)]
        unit = np.ones_like(sigma) if self.form == "absolute" else sigma + self.s0
        return quantile * unit


def level_key(level: float) -> str:
    """Return a level as files write it.

    >>> level_key(0.80)
    '0.8'
    """
    return f"{level:g}"
