"""Contents that hide behind two names: a held-out source must not have been trained on as another.

`motion2` depends on the reference alone, so two sources of one film show it: frame by frame, their
motion rises and falls together, whatever the encoders did. All is computed on log(motion2 + 0.1):
another resolution multiplies motion, which only shifts its logarithm, one scene cut does not
outweigh all other frames, and frames that stand still do not weigh more than their noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

__all__ = ["Twins", "find_twins", "twin_warnings"]

_STILL: Final = 0.1
"""Added to motion2 before the logarithm: what lies far below it is noise."""

# Where two sources count as one. Measured on 247 pairs of 29 sources that really differ, 30 to 600
# frames each, those of the demo corpus among them: correlations up to 0.85, spreads from 0.23.
# Twelve of these clips once more at half and at double size, coded by x264 at CRF 23, or both:
# correlations from 0.979, spreads up to 0.12. CRF 38, no reference any more, is found in 9 of 12.
# A copy that starts one frame later mostly is not found: frames are compared by their number.
_CORRELATION: Final = 0.95
_SPREAD: Final = 0.2
"""Most standard deviation of the logarithm of the ratio of both: scaled, they are nearly equal."""

_FRAMES: Final = 20
"""Fewest frames that both have, frame 0, whose motion is 0 by definition, left out."""
_SAME: Final = 1e-4
_SAME_FRAMES: Final = 5
"""Where the logarithm of the ratio spreads by less, fewer frames do: one file under two names."""
_LIVELY: Final = 0.05
"""Least standard deviation of each: motion that hardly changes says nothing about content."""

_MOST_FRAMES: Final = 2000
"""Frames compared, those that most sources have: more cost memory and tell nothing new."""
_BLOCK: Final = 256
"""Sources compared with all others at a time: memory stays linear in their number."""


class Twins(NamedTuple):
    """Two sources, sorted, that look like one content, and on what grounds."""

    one: str
    other: str
    correlation: float
    frames: int


def find_twins(rows: pl.DataFrame) -> tuple[Twins, ...]:
    """Return pairs of `src` whose mean motion2 by `frame_index` moves together, sorted.

    Where rows have an `fps`, only frames of equal rates are compared: others show other moments.
    """
    rate = pl.col("fps") if "fps" in rows.columns else pl.lit(None)
    motion = (
        rows.filter(pl.col("frame_index") > 0)
        .group_by(rate.alias("rate"), "src", "frame_index")
        .agg((pl.col("motion2").mean().clip(0) + _STILL).log().alias("motion"))
    )
    found: dict[tuple[str, str], Twins] = {}
    for _, part in motion.group_by("rate"):
        for twins in _alike(part):
            pair = twins.one, twins.other
            if pair not in found or found[pair].frames < twins.frames:
                found[pair] = twins
    return tuple(sorted(found.values()))


def twin_warnings(rows: pl.DataFrame, most: int = 5) -> tuple[str, ...]:
    """Return the sentence that names the pairs `find_twins` finds, the first `most`; or none."""
    found = find_twins(rows)
    if not found:
        return ()
    pairs = ", ".join(
        f"{one} and {other} (correlation {correlation:.3f} over {frames} frames)"
        for one, other, correlation, frames in found[:most]
    )
    more = f" and {len(found) - most} more pairs" if len(found) > most else ""
    warning = (
        f"sources that look like one content under two names, as their motion2 moves together: "
        f"{pairs}{more}; held out alone, each is judged by a model that saw the other: give them "
        "one src, or group by a column that names the content"
    )
    return (warning,)


def _alike(motion: pl.DataFrame) -> Iterator[Twins]:
    """Yield the twins among sources of one frame rate."""
    shared = motion.group_by("frame_index").len().filter(pl.col("len") > 1)
    frames = shared.sort("len", "frame_index", descending=[True, False]).head(_MOST_FRAMES)
    # A source with fewer frames than a pair must have in common takes part in none.
    motion = motion.join(frames, on="frame_index", how="semi")
    motion = motion.filter(pl.len().over("src") >= _SAME_FRAMES).sort("src", "frame_index")
    sources = motion["src"].unique().sort()
    if len(sources) < 2:
        return
    grid = np.full((len(sources), frames.height), np.nan)
    grid[
        motion["src"].rank("dense").to_numpy() - 1,
        np.searchsorted(frames["frame_index"].sort(), motion["frame_index"]),
    ] = motion["motion"]
    for one, other, correlation, common in _pairs(grid):
        yield Twins(sources[one], sources[other], correlation, common)


def _pairs(grid: NDArray[np.float64]) -> Iterator[tuple[int, int, float, int]]:
    """Yield the rows of `grid` (sources, frames; NaN where none) that move together over frames.

    Moments over common frames are products of matrices: a missing frame counts as 0 in each.
    """
    seen = np.isfinite(grid).astype(np.float64)
    # Sums of squares lose digits where the mean is far from 0.
    values = np.nan_to_num(grid - np.nanmean(grid, axis=1, keepdims=True))
    squares = values**2
    for start in range(0, len(grid), _BLOCK):
        block = slice(start, start + _BLOCK)
        common = seen[block] @ seen.T
        n = np.maximum(common, 1.0)
        mean_one, mean_other = values[block] @ seen.T / n, seen[block] @ values.T / n
        var_one = np.maximum(squares[block] @ seen.T / n - mean_one**2, 0.0)
        var_other = np.maximum(seen[block] @ squares.T / n - mean_other**2, 0.0)
        covariance = values[block] @ values.T / n - mean_one * mean_other
        deviations = np.sqrt(var_one * var_other)
        apart = var_one + var_other - 2 * covariance
        together = (np.minimum(var_one, var_other) >= _LIVELY**2) & (
            (common >= _FRAMES) & (covariance >= _CORRELATION * deviations) & (apart <= _SPREAD**2)
            | (common >= _SAME_FRAMES) & (apart <= _SAME**2)
        )
        for at, other in np.argwhere(np.triu(together, k=start + 1)):
            correlation = float(covariance[at, other] / deviations[at, other])
            yield start + int(at), int(other), correlation, int(common[at, other])
