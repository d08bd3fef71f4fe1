"""Which setting to probe next, from the scores of those that were probed; nothing is coded here.

A setting is its place on the scale, 0 the best. Scores fall along it, or nearly so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loso.recommend.curve import falling

__all__ = ["Bracket", "bracket_of", "next_setting", "predicted"]

_FRUITLESS: Final = 3
"""After so many probes on one side the end of the scale is asked whether there is another."""


@dataclass(frozen=True)
class Bracket:
    """What is known of the answer: `meets` was seen to meet the target, `misses` to miss it.

    `meets` is the cheapest such setting, -1 where none was seen; `misses` the best one beyond it,
    the number of settings where none was seen. Settled where nothing lies between.
    """

    meets: int
    misses: int

    @property
    def settled(self) -> bool:
        """Whether no further probe could change the answer."""
        return self.misses - self.meets == 1


def bracket_of(scores: Mapping[int, float], target: float, n_settings: int) -> Bracket:
    """Return what the scores of probed settings say about the cheapest one that meets `target`.

    >>> bracket_of({20: 96.0, 30: 91.0, 40: 70.0}, 90.0, 52)
    Bracket(meets=30, misses=40)
    """
    meets = max((at for at, score in scores.items() if score >= target), default=-1)
    misses = min((at for at in scores if at > meets), default=n_settings)
    return Bracket(meets, misses)


def predicted(scores: Mapping[int, float], usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what each setting is thought to score: (settings,), never rising.

    `usual` (settings,) falls. Contents differ from it mostly by a move along the scale, so a probe
    says which setting usually scores as much. Between probes that is interpolated, and rises;
    beyond the outermost the move stays as it is there.
    """
    if not scores:
        return usual
    places, values = _extended(usual)
    curve = falling(
        [(at, -float(np.interp(-score, -values, places))) for at, score in scores.items()]
    )
    settings = np.arange(len(usual), dtype=np.float64)
    # The curve stays level beyond its ends; there a step is a step of the usual curve.
    beyond = settings - np.clip(settings, curve.x[0], curve.x[-1])
    thought = np.interp(beyond - curve(settings), places, values)
    return np.minimum.accumulate(thought)


def _extended(usual: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the usual curve over places that go on beyond both ends of the scale, in a line."""
    n = len(usual)
    slopes = np.minimum([usual[1] - usual[0], usual[-1] - usual[-2]] if n > 1 else [-1, -1], -1e-9)
    places = np.concatenate([[-2.0 * n], np.arange(n), [3.0 * n]])
    ends = usual[[0, -1]] + slopes * [-2.0 * n, 2.0 * n + 1]
    return places, np.concatenate([ends[:1], usual, ends[1:]])


def next_setting(
    scores: Mapping[int, float], target: float, usual: NDArray[np.float64], *, made: int
) -> int | None:
    """Return the setting whose probe settles most, None where the answer is settled.

    `scores` stand in the order in which they were probed, the last `made` by this search. It is the
    open setting whose score is thought to be nearest the target: whether it meets it is then
    nearest to even, and of the yes and no that a probe gives such a one tells most. Where two
    probes in a row left more than half of what was open, the next halves it, so that no curve leads
    the search astray for long.
    """
    n_settings = len(usual)
    bracket = bracket_of(scores, target, n_settings)
    if bracket.settled:
        return None
    inside = np.arange(bracket.meets + 1, bracket.misses)
    if made >= _FRUITLESS and bracket.meets < 0:
        return 0
    if made >= _FRUITLESS and bracket.misses == n_settings:
        return n_settings - 1
    if bracket.meets >= 0 and bracket.misses < n_settings and _creeps(scores, target, n_settings):
        return (bracket.meets + bracket.misses) // 2
    thought = predicted(scores, usual)[inside]
    return int(inside[np.argmin(np.abs(thought - target))])


def _creeps(scores: Mapping[int, float], target: float, n_settings: int) -> bool:
    """Tell whether the last two probes left more than half of the bracket before them."""
    if len(scores) < 4:
        return False
    before = dict(list(scores.items())[:-2])
    then, now = (bracket_of(own, target, n_settings) for own in (before, scores))
    closed = then.meets >= 0 and then.misses < n_settings
    return closed and 2 * (now.misses - now.meets) > then.misses - then.meets
