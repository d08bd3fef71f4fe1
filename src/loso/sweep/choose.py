"""One choice among recipes: by the mean of their scores, the cheaper where that is equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from loso.errors import Refused
from loso.sweep.scores import Score

__all__ = ["CRITERIA", "Choice", "Chosen", "choose_recipe", "mean_score"]

CRITERIA: Final = ("rmse", "plcc")
"""What a choice can go by, the usual one first.

RMSE is in the target's unit, sees a wrong level and a wrong scale, and always exists. PLCC sees
neither, is undefined where a prediction is constant, and lies so near 1 with VMAF as the target
that recipes differ in its fifth digit.
"""


@dataclass(frozen=True)
class Choice:
    """What recipes were chosen by, in their order: None with a reason where there is no value.

    `order` has the places of the others, best first.
    """

    values: tuple[float | None, ...]
    reasons: Mapping[int, str]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Chosen:
    """The choices of a sweep: for each judged source without it, and once over all sources."""

    of_fold: Mapping[str, Choice]
    overall: Choice


def choose_recipe(
    scores: Sequence[Mapping[str, Score]],
    costs: Sequence[float],
    by: str,
    *,
    out: Mapping[int, str],
    where: str,
) -> Choice:
    """Return the choice among recipes by the mean over sources of each one's scores.

    `out` has the places of those that take no part, with the reason. Of equal means the cheaper
    comes first. Refused, which names `where`, if none is left.
    """
    values: list[float | None] = []
    reasons = dict(out)
    for place, own in enumerate(scores):
        value = None
        if place not in out:
            value, reason = mean_score(own, by)
            if reason is not None:
                reasons[place] = reason
        values.append(value)
    sign = 1.0 if by == "rmse" else -1.0
    order = sorted(
        (sign * value, costs[i], i) for i, value in enumerate(values) if value is not None
    )
    if not order:
        place, reason = next(iter(sorted(reasons.items())))
        raise Refused(
            "no recipe is left to choose",
            where=where,
            found=f"of recipe {place}: {reason}",
            fix="lower the learning rates, or choose by rmse where it is a PLCC that is lacking",
        )
    return Choice(tuple(values), reasons, tuple(i for _, _, i in order))


def mean_score(scores: Mapping[str, Score], by: str) -> tuple[float | None, str | None]:
    """Return the mean over sources of what a choice goes by, or None and the reason.

    A mean over an undefined PLCC is undefined, and the reason names its source.

    >>> mean_score({"a": Score(plcc=0.5, rmse=1.0), "b": Score(plcc=0.75, rmse=2.0)}, "plcc")
    (0.625, None)
    """
    if by == "rmse":
        return fmean(score.rmse for score in scores.values()), None
    values = [score.plcc for score in scores.values() if score.plcc is not None]
    if len(values) == len(scores):
        return fmean(values), None
    missing = (f"{name} ({own.reason})" for name, own in scores.items() if own.plcc is None)
    return None, f"no PLCC within {', '.join(missing)}"
