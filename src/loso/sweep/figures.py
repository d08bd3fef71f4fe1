"""What a choice is worth: figures of ensembles on sources that neither they nor it have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loso.baselines import gain_on_scale
from loso.coverage import pairs_of
from loso.metrics import plcc, rmse, srocc
from loso.metrics.correlation import defined_mean
from loso.recipe import is_mapped
from loso.sweep.choose import Choice, Chosen
from loso.sweep.ensembles import Ensembles
from loso.sweep.fits import cost_of
from loso.sweep.grid import Candidate
from loso.sweep.records import FoldChoice, SourceScore, SweepFigures, SweepFile, SweptRecipe
from loso.sweep.scores import Question, RecipeScores

__all__ = ["measure_sweep", "summarise_sweep"]

_OnScale = Mapping[str, NDArray[np.float64]]
"""By judged source the predictions of its rows, ascending, mapped where the target asks for it."""


def summarise_sweep(
    candidates: Sequence[Candidate],
    scores: Sequence[RecipeScores],
    chosen: Chosen,
    question: Question,
    ensembles: Ensembles,
    *,
    usual: int,
    made: Mapping[str, Any],
) -> SweepFile:
    """Return the record of a sweep, of which `made` has the keys that say what it was made from.

    The nested choice, the best over all sources and the usual recipe go through the same mapping,
    fitted for each source without it, and differ in nothing but the recipe.
    """
    recipes = [candidate.recipe for candidate in candidates]
    best = {source: choice.order[0] for source, choice in chosen.of_fold.items()}
    overall = chosen.overall.order[0]

    def predict(number_of: Mapping[str, int]) -> _OnScale:
        found = {}
        for source, number in number_of.items():
            mean, mapping = (
                ensembles.mean(recipes[number], source),
                scores[number].inner[source].mapping,
            )
            found[source] = mean if mapping is None else mapping.apply(mean)
        return found

    nested, flattered = predict(best), predict(dict.fromkeys(best, overall))
    lost = scores[usual].out or next(
        filter(None, (ensembles.lost(recipes[usual], source) for source in best)), None
    )
    as_usual = None if lost else predict(dict.fromkeys(best, usual))
    figures = measure_sweep(question, nested, None)
    flattering = measure_sweep(question, flattered, overall)
    n_sources = len(question.names)
    return SweepFile(
        **made,
        target=question.target,
        mapping="cubic without the held-out source" if is_mapped(question.target) else "none",
        seeds=ensembles.seeds,
        choosing_seed=ensembles.seeds[0],
        sources=question.names,
        judged_sources=question.judged_names,
        n_pairs=len(pairs_of(question.judged, n_sources)),
        n_pairs_possible=n_sources * (n_sources - 1) // 2,
        capped=len(question.judged) < n_sources,
        varied=tuple(candidates[0].settings),
        recipes=tuple(
            SweptRecipe(
                settings=dict(candidate.settings),
                cost=cost_of(candidate.recipe),
                plain_score=chosen.overall.values[number],
                chosen_by=tuple(source for source, own in best.items() if own == number),
                reason=chosen.overall.reasons.get(number),
            )
            for number, candidate in enumerate(candidates)
        ),
        folds=tuple(_fold(source, choice) for source, choice in chosen.of_fold.items()),
        usual=usual,
        chosen=overall,
        nested=figures,
        flattered=flattering,
        as_usual=as_usual and measure_sweep(question, as_usual, usual),
        as_usual_reason=lost,
        gain_over_usual=as_usual and gain_on_scale(*_gain(question, nested, as_usual)),
        flattery_rmse=figures.pooled_rmse - flattering.pooled_rmse,
        flattery_plcc=_difference(flattering.mean_plcc, figures.mean_plcc),
    )


def measure_sweep(question: Question, on_scale: _OnScale, recipe: int | None) -> SweepFigures:
    """Return the figures of ensembles, each source predicted by one that had not seen it."""
    by_source = {}
    for name, y_pred in on_scale.items():
        y_true = question.y_true[question.source == name]
        linear, rank = plcc(y_true, y_pred), srocc(y_true, y_pred)
        by_source[name] = SourceScore(
            n_rows=len(y_true),
            plcc=linear.value,
            srocc=rank.value,
            rmse=rmse(y_true, y_pred),
            reason=linear.reason or rank.reason,
        )
    y_pred = np.concatenate([*on_scale.values()])
    y_true = question.y_true[_rows(question, on_scale)]
    return SweepFigures(
        recipe=recipe,
        mean_plcc=defined_mean(own.plcc for own in by_source.values()),
        mean_srocc=defined_mean(own.srocc for own in by_source.values()),
        mean_rmse=fmean(own.rmse for own in by_source.values()),
        pooled_plcc=plcc(y_true, y_pred).value,
        pooled_srocc=srocc(y_true, y_pred).value,
        pooled_rmse=rmse(y_true, y_pred),
        by_source=by_source,
    )


def _rows(question: Question, on_scale: _OnScale) -> NDArray[np.intp]:
    """Return the rows of the predictions, one source after the other."""
    return np.concatenate([np.flatnonzero(question.source == name) for name in on_scale])


def _gain(
    question: Question, on_scale: _OnScale, beside: _OnScale
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]:
    rows = _rows(question, on_scale)
    y_pred, other = (np.concatenate([*each.values()]) for each in (on_scale, beside))
    return question.y_true[rows], y_pred, other, question.source[rows]


def _fold(source: str, choice: Choice) -> FoldChoice:
    best, *others = choice.order
    return FoldChoice(
        held_out=source,
        chosen=best,
        runner_up=others[0] if others else None,
        scores=choice.values,
        reasons={str(number): reason for number, reason in sorted(choice.reasons.items())},
    )


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
