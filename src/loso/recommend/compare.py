"""Ways of coding one clip beside each other at equal quality: each against the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loso.errors import BadInput
from loso.recommend.answer import Coding
from loso.recommend.bdrate import BdRate, bd_rate, bitrate_at

__all__ = ["Beside", "compare"]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One way of coding beside the first.

    `bitrates_kbps` are those at which it reaches each target exactly, between its probes, None
    beyond them. `bd` is None where there is no BD-rate, and `reason` says why.
    """

    coding: Coding
    bitrates_kbps: tuple[float | None, ...]
    bd: BdRate | None
    reason: str


def compare(codings: Sequence[Coding]) -> tuple[Beside, ...]:
    """Return every way of coding beside the first; the first beside itself has no BD-rate."""
    return tuple(_beside(codings[0], coding) for coding in codings)


def _beside(first: Coding, coding: Coding) -> Beside:
    points = _points(coding)
    bd, reason = None, "" if coding is not first else "the others are held against it"
    if coding is not first:
        try:
            bd = bd_rate(_points(first), points)
        except BadInput as refusal:
            reason = str(refusal)
    return Beside(
        coding=coding,
        bitrates_kbps=tuple(bitrate_at(points, answer.target) for answer in coding.answers),
        bd=bd,
        reason=reason,
    )


def _points(coding: Coding) -> list[tuple[float, float]]:
    return [(tried.score.value, tried.bitrate_kbps) for tried in coding.tried]
