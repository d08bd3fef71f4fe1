"""Seeds x folds: train every member, predict each row by the members that never saw its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.corpus.load import Corpus
from loso.corpus.view import view
from loso.engine import Member, TrainingPlan, train_members
from loso.engine.shards import ClusterCompute
from loso.errors import Diverged
from loso.folds import Fold, leave_one_source_out
from loso.inputs import Inputs, Scaler, build_inputs
from loso.metrics import plcc, rmse, srocc
from loso.progress import Progress, silent
from loso.recipe import DEFAULT_SEEDS, Compute, Recipe, check_seeds
from loso.seedfile import FoldScore, Summary, summarise

__all__ = [
    "LosoRun",
    "SeedResult",
    "fit_and_predict",
    "fit_each",
    "run_loso",
    "score_folds",
    "target_scale",
]


@dataclass(frozen=True)
class SeedResult:
    """One seed: out-of-fold predictions, its scores on each held-out source, its losses.

    `predictions` has one row for each corpus row: `row fold src encoder preset cq frame_index`,
    `clip` where the corpus has it, `y_true` and `y_pred` in the target's unit. `losses` is
    (folds, epochs), in the target's unit squared.
    """

    seed: int
    predictions: pl.DataFrame
    folds: tuple[FoldScore, ...]
    losses: NDArray[np.float64]

    @property
    def summary(self) -> Summary:
        """Mean, spread and extremes over the folds."""
        return summarise(self.folds)


@dataclass(frozen=True)
class LosoRun:
    """What leave-one-source-out training gives: one result a seed, and what to tell the user."""

    seeds: tuple[SeedResult, ...]
    warnings: tuple[str, ...] = ()


def run_loso(
    corpus: Corpus,
    recipe: Recipe | None = None,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    *,
    exclude_sources: Sequence[str] = (),
    compute: Compute | None = None,
    progress: Progress = silent,
) -> LosoRun:
    """Return every seed's scores and predictions on sources it has not seen.

    Every distinct source is held out once; scaler and network are fitted on the other sources'
    rows alone. BadCorpus with fewer than two sources, Diverged where a member leaves the finite
    numbers.
    """
    recipe, compute = recipe or Recipe(), compute or Compute()
    seeds = check_seeds(seeds)
    seen = view(corpus, recipe, exclude_sources)
    inputs = build_inputs(seen, recipe)
    folds = leave_one_source_out(seen.rows["src"].to_numpy())
    predicted, losses = fit_and_predict(
        inputs, folds, recipe, seeds, compute=compute, progress=progress
    )
    results = []
    for seed, of_fold, loss in zip(seeds, predicted, losses, strict=True):
        y_pred = np.empty(len(inputs.target))
        for fold, of_rows in zip(folds, of_fold, strict=True):
            y_pred[fold.test] = of_rows
        predictions = _table(seen.rows, folds, inputs, y_pred)
        scores = score_folds(predictions, [fold.held_out for fold in folds])
        results.append(SeedResult(seed, predictions, scores, loss))
    return LosoRun(tuple(results), inputs.warnings)


def fit_and_predict(
    inputs: Inputs,
    folds: Sequence[Fold],
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    compute: Compute,
    progress: Progress = silent,
) -> tuple[list[list[NDArray[np.float64]]], NDArray[np.float64]]:
    """Return for each seed and fold the prediction of its `test` rows, and (seeds, folds, epochs).

    The second part holds the losses of training. Diverged where a member leaves the finite numbers,
    else as `fit_each`.
    """
    found, losses = fit_each(inputs, folds, recipe, seeds, compute=compute, progress=progress)
    predicted = []
    for of_seed in found:
        finite = []
        for y_pred in of_seed:
            if isinstance(y_pred, Diverged):
                raise y_pred
            finite.append(y_pred)
        predicted.append(finite)
    return predicted, losses


def fit_each(
    inputs: Inputs,
    folds: Sequence[Fold],
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    compute: Compute,
    progress: Progress = silent,
) -> tuple[list[list[NDArray[np.float64] | Diverged]], NDArray[np.float64]]:
    """Return as `fit_and_predict`, with the refusal of a member in place of its prediction.

    Scaler and network of a fold are fitted on its `train` rows alone; `index` is the fold's address
    in the randomness of training. All members are of one plan.
    """
    scalers = [Scaler.fit(inputs.matrix[fold.train], inputs.scaled) for fold in folds]
    scales = [target_scale(inputs.target[fold.train], recipe) for fold in folds]
    plan = TrainingPlan(
        inputs=inputs.matrix.astype(np.float32),
        target=inputs.target.astype(np.float32),
        members=tuple(
            Member(seed, fold.index, fold.held_out, fold.train, scaler.mean, scaler.std, *scale)
            for seed in seeds
            for fold, scaler, scale in zip(folds, scalers, scales, strict=True)
        ),
        recipe=recipe,
    )
    trained = train_members(
        plan,
        engine=compute.engine,
        device=compute.device,
        threads=compute.threads,
        keep_diverged=True,
        cluster=compute.cluster if isinstance(compute, ClusterCompute) else None,
        progress=progress,
    )
    networks, failures = iter(trained.networks), iter(trained.failures(plan))

    def predict(fold: Fold, scaler: Scaler) -> NDArray[np.float64] | Diverged:
        network, failure = next(networks), next(failures)
        return failure or network.predict(scaler.transform(inputs.matrix[fold.test]))

    predicted = [[predict(*own) for own in zip(folds, scalers, strict=True)] for _ in seeds]
    return predicted, trained.losses.reshape(len(seeds), len(folds), recipe.epochs)


def target_scale(train: NDArray[np.float64], recipe: Recipe) -> tuple[float, float]:
    """Return the mean and standard deviation (ddof=0) by which a member standardises its target.

    0 and 1 where the recipe learns it raw, and a deviation of 1 where all values are one.
    """
    if not recipe.standardise_target:
        return 0.0, 1.0
    constant = train.min() == train.max()  # whose deviation may be some rounding, not 0
    return float(train.mean()), 1.0 if constant else float(train.std())


def _table(
    rows: pl.DataFrame, folds: Sequence[Fold], inputs: Inputs, y_pred: NDArray[np.float64]
) -> pl.DataFrame:
    fold_of_row = np.empty(rows.height, dtype=np.int64)
    for fold in folds:
        fold_of_row[fold.test] = fold.index
    if "preset" not in rows.columns:
        rows = rows.with_columns(preset=pl.lit(None, dtype=pl.String))
    names = ["src", "encoder", "preset", "cq", *(["clip"] if "clip" in rows.columns else [])]
    return rows.select(
        "row",
        pl.Series("fold", fold_of_row),
        *names,
        "frame_index",
        pl.Series("y_true", inputs.target),
        pl.Series("y_pred", y_pred),
    )


def score_folds(predictions: pl.DataFrame, held_out: Sequence[str]) -> tuple[FoldScore, ...]:
    """Return the scores of each fold from a table of out-of-fold predictions.

    `held_out` names the source of each fold index. RMSE is in the target's unit.
    """
    scores = []
    for index, source in enumerate(held_out):
        own = predictions.filter(pl.col("fold") == index)
        y_true, y_pred = own["y_true"].to_numpy(), own["y_pred"].to_numpy()
        linear, rank = plcc(y_true, y_pred), srocc(y_true, y_pred)
        scores.append(
            FoldScore(
                held_out=source,
                n_train=predictions.height - own.height,
                n_val=own.height,
                plcc=linear.value,
                srocc=rank.value,
                rmse=rmse(y_true, y_pred),
                reason=linear.reason or rank.reason,
            )
        )
    return tuple(scores)
