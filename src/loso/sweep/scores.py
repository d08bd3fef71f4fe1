"""What a recipe is chosen by: its scores on sources that its networks had not seen.

For a held-out source s the inner folds are the other sources: each is judged by the network that
saw neither it nor s, so that nothing a choice for s rests on has touched a row of s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from loso.baselines import on_scale
from loso.errors import Diverged
from loso.metrics import CubicMapping, map_out_of_fold, plcc, rmse
from loso.recipe import is_mapped
from loso.records import OneFault

__all__ = [
    "InnerScores",
    "LeftOut",
    "Question",
    "RecipeScores",
    "Score",
    "score_recipe",
]

LeftOut = tuple[int, ...]
"""The sources that a network has not seen, one or two, ascending, numbered in sorted order."""

_Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """What is predicted: the target and the source of each row, and the sources to judge.

    `names` are all sources, sorted; `judged` counts in them, ascending.
    """

    y_true: _Vector
    source: NDArray[np.str_]
    names: tuple[str, ...]
    judged: tuple[int, ...]
    target: str

    @property
    def judged_names(self) -> tuple[str, ...]:
        """The names of the judged sources."""
        return tuple(self.names[s] for s in self.judged)


class _Record(OneFault, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Score(_Record):
    """How predictions of one source's rows do; PLCC is None, with the reason, where undefined."""

    plcc: float | None
    rmse: float
    reason: str | None = None


class InnerScores(_Record):
    """What a choice for one held-out source goes by: the other sources' scores, by name.

    `mapping`, fitted on all of these predictions, brings any prediction of the held-out source onto
    the scale of the target; None where the target needs none. `out` says why there are no scores.
    """

    scores: dict[str, Score]
    mapping: CubicMapping | None = None
    out: str | None = None


class RecipeScores(_Record):
    """A recipe's scores: `inner` by held-out source, `plain` with every source held out once.

    `out` says which network of the recipe left the finite numbers, if any; `plain` is empty then.
    """

    inner: dict[str, InnerScores]
    plain: dict[str, Score]
    out: str | None = None


def score_recipe(found: Mapping[LeftOut, _Vector | Diverged], question: Question) -> RecipeScores:
    """Return the scores of one recipe from all that its networks predict of what they lack.

    `found` has the predictions of the rows, ascending, of each source alone and of each judged
    source with every other. They are mapped first where `is_mapped`, each source by a cubic fitted
    on the others of its fold.
    """
    y_true, source, names = question.y_true, question.source, question.names
    own_rows = [np.flatnonzero(source == name) for name in names]
    inner = {}
    for held_out in question.judged:
        others = [k for k in range(len(names)) if k != held_out]
        pairs = {k: (min(k, held_out), max(k, held_out)) for k in others}
        lost = _first_lost(found, [(held_out,), *pairs.values()])
        if lost is not None:
            inner[names[held_out]] = InnerScores(scores={}, out=lost)
            continue
        rows = np.concatenate([own_rows[k] for k in others])
        y_pred = np.concatenate([_of_one(found, pairs[k], k, own_rows) for k in others])
        mapping = None
        if is_mapped(question.target):
            mapping = CubicMapping.fit(y_pred, y_true[rows])
            y_pred = map_out_of_fold(y_true[rows], y_pred, source[rows])
        scores = _scores(y_true[rows], y_pred, source[rows])
        inner[names[held_out]] = InnerScores(scores=scores, mapping=mapping)
    lost = _first_lost(found, list(found))
    if lost is not None:
        return RecipeScores(inner=inner, plain={}, out=lost)
    alone = np.empty(len(y_true))
    for k, rows in enumerate(own_rows):
        alone[rows] = _of_one(found, (k,), k, own_rows)
    on_its_scale = on_scale(question.target, y_true, alone, source)
    return RecipeScores(inner=inner, plain=_scores(y_true, on_its_scale, source))


def _first_lost(
    found: Mapping[LeftOut, _Vector | Diverged], wanted: Sequence[LeftOut]
) -> str | None:
    lost = (found[left_out] for left_out in wanted)
    return next((str(each) for each in lost if isinstance(each, Diverged)), None)


def _of_one(
    found: Mapping[LeftOut, _Vector | Diverged],
    left_out: LeftOut,
    own: int,
    own_rows: Sequence[NDArray[np.intp]],
) -> _Vector:
    """Return the predictions of one source's rows by the network that lacks `left_out`."""
    y_pred = found[left_out]
    if isinstance(y_pred, Diverged):
        raise y_pred
    rows = np.sort(np.concatenate([own_rows[k] for k in left_out]))
    return y_pred[np.isin(rows, own_rows[own])]


def _scores(y_true: _Vector, y_pred: _Vector, source: NDArray[np.str_]) -> dict[str, Score]:
    scores = {}
    for name in np.unique(source):
        own = source == name
        linear = plcc(y_true[own], y_pred[own])
        scores[str(name)] = Score(
            plcc=linear.value, rmse=rmse(y_true[own], y_pred[own]), reason=linear.reason
        )
    return scores
