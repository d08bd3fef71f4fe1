"""A clip's score from those of its frames: four ways to pool, each in the unit of the score."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CLIP_POOLS", "pool_scores"]

CLIP_POOLS: Final = ("mean", "hmean", "p1", "p5")


def pool_scores(scores: ArrayLike, clip: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Return each pool of `CLIP_POOLS` as (..., clips), clips ascending, from (..., rows) scores.

    `clip` (rows,) says which clip a row belongs to. `mean` is the arithmetic mean; `hmean` is
    libvmaf's harmonic mean, n / sum(1 / (x + 1)) - 1, for which scores below 0 count as 0, since
    it has a pole at -1; `p1` and `p5` are percentiles with linear interpolation, as numpy's.

    >>> pool_scores([[90.0, 80.0, 70.0]], [4, 4, 7])["mean"]
    array([[85., 70.]])
    """
    values = np.asarray(scores, dtype=np.float64)
    _, code, count = np.unique(clip, return_inverse=True, return_counts=True)
    order = np.argsort(code, kind="stable")
    start = np.cumsum(count) - count
    values = values[..., order]
    inverse = np.add.reduceat(1.0 / (np.maximum(values, 0.0) + 1.0), start, axis=-1)
    # Within a clip ascending: sorted by score, then stably by clip.
    of_clip = np.broadcast_to(code[order], values.shape)
    ascending = np.take_along_axis(values, np.lexsort((values, of_clip), axis=-1), axis=-1)
    return {
        "mean": np.add.reduceat(values, start, axis=-1) / count,
        "hmean": count / inverse - 1.0,
        "p1": _percentile(ascending, start, count, 0.01),
        "p5": _percentile(ascending, start, count, 0.05),
    }


def _percentile(
    ascending: NDArray[np.float64], start: NDArray[np.intp], count: NDArray[np.intp], share: float
) -> NDArray[np.float64]:
    place = (count - 1) * share
    below = np.floor(place).astype(np.intp)
    above = np.minimum(below + 1, count - 1)
    low, high = ascending[..., start + below], ascending[..., start + above]
    pooled: NDArray[np.float64] = low + (high - low) * (place - below)
    return pooled
