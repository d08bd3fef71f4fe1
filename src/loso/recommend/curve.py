"""A few measured points become a curve that never turns back: isotonic, then PCHIP between them.

PCHIP is piecewise cubic and stays within its points (Fritsch and Butland 1984, the weights of
Fritsch and Carlson 1980), as in SciPy, whose import takes longer than a whole question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Curve", "falling", "isotonic"]

_Vector = NDArray[np.float64]

# Gauss and Legendre's two points in -1..1, of weight 1 each: exact for cubics.
_GAUSS = 1.0 / np.sqrt(3.0)


def isotonic(values: ArrayLike) -> _Vector:
    """Return the nearest values, by least squares, that never rise: pooled neighbours.

    >>> isotonic([95.0, 90.0, 92.0, 60.0]).tolist()
    [95.0, 91.0, 91.0, 60.0]
    """
    blocks: list[tuple[float, int]] = []
    for value in np.asarray(values, dtype=np.float64).tolist():
        mean, count = value, 1
        while blocks and blocks[-1][0] < mean:
            last, before = blocks.pop()
            mean, count = (last * before + mean * count) / (before + count), before + count
        blocks.append((mean, count))
    return np.concatenate([np.full(count, mean) for mean, count in blocks])


@dataclass(frozen=True, eq=False)
class Curve:
    """A monotone curve through (points,) `x`, which rise strictly, and `y`."""

    x: _Vector
    y: _Vector

    def __call__(self, at: ArrayLike) -> _Vector:
        """Return the curve's values; beyond its ends it stays as it is there."""
        x, y = self.x, self.y
        place = np.clip(np.asarray(at, dtype=np.float64), x[0], x[-1])
        if len(x) == 1:
            return np.full_like(place, y[0])
        left = np.clip(np.searchsorted(x, place, side="right") - 1, 0, len(x) - 2)
        width = np.diff(x)[left]
        slopes = self._slopes()
        t = (place - x[left]) / width
        rise = 1.0 - t
        # Hermite's cubic, from the values and the slopes at both ends of an interval.
        value: _Vector = (
            y[left] * (1.0 + 2.0 * t) * rise**2
            + y[left + 1] * (1.0 + 2.0 * rise) * t**2
            + width * (slopes[left] * t * rise**2 - slopes[left + 1] * rise * t**2)
        )
        return value

    def integral(self, low: float, high: float) -> float:
        """Return the integral from `low` to `high`, both within the curve's ends."""
        inner = self.x[(self.x > low) & (self.x < high)]
        ends = np.concatenate([[low], inner, [high]])
        half, middle = np.diff(ends) / 2.0, (ends[1:] + ends[:-1]) / 2.0
        both = self(middle - half * _GAUSS) + self(middle + half * _GAUSS)
        return float(half @ both)

    def _slopes(self) -> _Vector:
        width = np.diff(self.x)
        chord = np.diff(self.y) / width
        if len(chord) == 1:
            return np.repeat(chord, 2)
        one, other = chord[:-1], chord[1:]
        after, before = 2.0 * width[1:] + width[:-1], width[1:] + 2.0 * width[:-1]
        same = one * other > 0.0
        inner = np.zeros_like(one)
        # Their weighted harmonic mean, in the form that does not overflow where one is tiny.
        mean = (after + before) * (one * other)
        inner[same] = mean[same] / (after * other + before * one)[same]
        first = _end_slope(width[0], width[1], chord[0], chord[1])
        last = _end_slope(width[-1], width[-2], chord[-1], chord[-2])
        return np.concatenate([[first], inner, [last]])


def _end_slope(own: float, next_: float, chord: float, next_chord: float) -> float:
    """Return the slope at an end: of the parabola through three points, kept from turning back."""
    slope = ((2.0 * own + next_) * chord - own * next_chord) / (own + next_)
    if slope * chord <= 0.0:
        return 0.0
    if chord * next_chord <= 0.0 and abs(slope) > 3.0 * abs(chord):
        return 3.0 * chord
    return slope


def falling(points: Sequence[tuple[float, float]]) -> Curve:
    """Return the falling curve of points (x, y), those that rise pooled first.

    >>> falling([(20, 96.0), (40, 60.0), (30, 84.0)])([25.0]).round(2).tolist()
    [91.25]
    """
    x, y = np.array(sorted(points, key=lambda point: point[0]), dtype=np.float64).T
    return Curve(x, isotonic(y))
