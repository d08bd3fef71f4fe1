"""What one way of coding costs beside another at equal quality: at a score, and over a range.

Bjontegaard's delta (VCEG-M33, 2001) with PCHIP in the place of his cubic, which can swing between
points: the mean difference of log bitrate over the scores that both ways reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from loso.errors import BadInput
from loso.recommend.curve import Curve

__all__ = ["LEAST_POINTS", "BdRate", "bd_rate", "bitrate_at"]

LEAST_POINTS: Final = 4
"""Of each way: fewer leave its curve to guesswork."""


@dataclass(frozen=True, kw_only=True)
class BdRate:
    """Percent of bitrate that equal quality costs more (below 0: less), from `low` to `high`.

    `overlap` is the share of both ways' range of scores that they have in common: of little of it,
    the figure says little.
    """

    percent: float
    low: float
    high: float
    overlap: float


def bd_rate(
    reference: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]
) -> BdRate:
    """Return the BD-rate of `other` against `reference`, each given as points (score, kbit/s).

    BadInput where one has fewer than four points that rise in score and bitrate, and where the two
    reach no score in common.

    >>> points = [(60.0, 500.0), (75.0, 900.0), (88.0, 2000.0), (95.0, 5000.0)]
    >>> round(bd_rate(points, [(score, 0.8 * kbps) for score, kbps in points]).percent, 9)
    -20.0
    """
    curves = [_curve(points) for points in (reference, other)]
    for curve in curves:
        if len(curve.x) < LEAST_POINTS:
            raise BadInput(
                "too few points for a BD-rate",
                expected=f"at least {LEAST_POINTS} that rise in score and in bitrate",
                found=f"{len(curve.x)}",
                fix="ask for several targets: --ladder 95,90,85,80",
            )
    low = max(curve.x[0] for curve in curves)
    high = min(curve.x[-1] for curve in curves)
    if low >= high:
        ranges = (f"{curve.x[0]:.2f}..{curve.x[-1]:.2f}" for curve in curves)
        raise BadInput("no score that both reach, and so no BD-rate", found=" and ".join(ranges))
    more = (curves[1].integral(low, high) - curves[0].integral(low, high)) / (high - low)
    whole = max(curve.x[-1] for curve in curves) - min(curve.x[0] for curve in curves)
    return BdRate(
        percent=float(100 * np.expm1(more)),
        low=float(low),
        high=float(high),
        overlap=float((high - low) / whole),
    )


def bitrate_at(points: Sequence[tuple[float, float]], score: float) -> float | None:
    """Return the kbit/s at which points (score, kbit/s) reach a score, None beyond their range."""
    curve = _curve(points)
    if not len(curve.x) or not curve.x[0] <= score <= curve.x[-1]:
        return None
    return float(np.exp(curve([score])[0]))


def _curve(points: Sequence[tuple[float, float]]) -> Curve:
    """Return log bitrate against score, through the points that no cheaper one reaches."""
    kept: list[tuple[float, float]] = []
    for score, kbps in sorted(points, key=lambda point: (point[1], -point[0])):
        if not kept or score > kept[-1][0]:
            kept.append((score, float(np.log(kbps))))
    scores, rates = np.array(kept, dtype=np.float64).reshape(-1, 2).T
    return Curve(scores, rates)
