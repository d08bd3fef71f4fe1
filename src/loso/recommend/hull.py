"""The points worth having of several sizes: the convex hull of bitrate and score."""

from __future__ import annotations

from collections.abc import Sequence

from loso.recommend.answer import Coding, Tried

__all__ = ["convex_hull", "hull_of"]


def hull_of(codings: Sequence[Coding]) -> list[tuple[Coding, Tried]]:
    """Return the points worth having of one clip's codings at several heights, cheapest first."""
    tried = [(coding, one) for coding in codings for one in coding.tried]
    points = [(one.bitrate_kbps, one.score.value) for _, one in tried]
    return [tried[at] for at in convex_hull(points)]


def convex_hull(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Return the indices of the points (bitrate, score) on the upper hull, from the cheapest on.

    Along it the score rises, and each further kbit/s buys less: between two of its points no other
    is better than a mixture of both (De Cock and others 2016, "Complexity-based consistent-quality
    encoding in the cloud").

    >>> convex_hull([(100.0, 60.0), (200.0, 70.0), (300.0, 90.0), (400.0, 85.0)])
    (0, 2)
    """
    # Of one bitrate the best score comes first, so that the others lie below the hull.
    order = sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1]))
    hull: list[int] = []
    for at in order:
        if hull and points[at][1] <= points[hull[-1]][1]:
            continue
        while len(hull) > 1 and not _turns_down(points[hull[-2]], points[hull[-1]], points[at]):
            hull.pop()
        hull.append(at)
    return tuple(hull)


def _turns_down(
    one: tuple[float, float], middle: tuple[float, float], other: tuple[float, float]
) -> bool:
    """Tell whether the slope falls at `middle`."""
    rise, run = middle[1] - one[1], middle[0] - one[0]
    return rise * (other[0] - middle[0]) > (other[1] - middle[1]) * run
