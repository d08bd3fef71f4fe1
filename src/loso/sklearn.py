"""The ensemble as a scikit-learn estimator: any numeric columns in, any numeric target out.

The one door to scikit-learn. A model folder for encoding pipelines comes from `loso export`; this
is for those who work in scikit-learn and want the networks, and intervals over groups, there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loso.crossval import target_scale
from loso.engine import Member, TrainingPlan, train_members
from loso.errors import BadSettings, MissingExtra
from loso.folds import leave_one_source_out
from loso.inputs import Scaler
from loso.intervals import Points, choose_level, fit_rule
from loso.recipe import DEFAULT_SEEDS, Recipe, check_seeds

try:
    # It ships no types, so its classes are Any to the type checker.
    from sklearn.base import BaseEstimator, RegressorMixin  # type: ignore[import-untyped]
    from sklearn.utils.validation import (  # type: ignore[import-untyped]
        check_consistent_length,
        check_is_fitted,
        validate_data,
    )
except ImportError:
    raise MissingExtra(
        "LosoRegressor needs scikit-learn, 1.6 or later", fix="pip install 'loso[sklearn]'"
    ) from None

__all__ = ["LosoRegressor"]

_DEFAULTS: Final = Recipe()
_RECIPE_FIELDS: Final = frozenset(f.name for f in fields(Recipe) if "low" in f.metadata)


class LosoRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """An ensemble of small networks, one for each seed, with intervals for groups nobody has seen.

    Columns are standardised on the training rows, and so is the target, which may be of any unit;
    `standardise_target=False` learns it raw, as the standard recipe does. The same data, seeds and
    engine give the same predictions. Parameters are those of `loso.recipe.Recipe` and
    `loso.recipe.Compute`, checked by `fit`, which raises BadSettings.

    Attributes
    ----------
    networks_ : trained networks, one for each seed, on standardised columns
    mean_, std_ : (columns,) what the columns are standardised with
    groups_ : names of the groups that intervals are calibrated on; after `fit` with groups only
    calibration_ : absolute residual and sigma of every row of each group, from networks that did
        not see the group; after `fit` with groups only
    """

    def __init__(
        self,
        *,
        hidden: int = _DEFAULTS.hidden,
        depth: int = _DEFAULTS.depth,
        dropout: float = _DEFAULTS.dropout,
        epochs: int = _DEFAULTS.epochs,
        batch_size: int = _DEFAULTS.batch_size,
        lr: float = _DEFAULTS.lr,
        weight_decay: float = _DEFAULTS.weight_decay,
        standardise_target: bool = True,
        seeds: Sequence[int] = DEFAULT_SEEDS,
        engine: str = "auto",
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.hidden = hidden
        self.depth = depth
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.standardise_target = standardise_target
        self.seeds = seeds
        self.engine = engine
        self.device = device
        self.threads = threads

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:  # noqa: N803 (scikit-learn's name)
        """Train on rows X (rows, columns) and y (rows,); return self.

        `groups` (rows,) names what a row belongs to, such as its source clip. Then every group is
        held out once as well, and `predict_interval` works; it changes no prediction.
        """
        recipe = Recipe(
            **{name: getattr(self, name) for name in _RECIPE_FIELDS},
            standardise_target=bool(self.standardise_target),
        )
        seeds = check_seeds(self.seeds)
        rows, target = validate_data(self, X, y, y_numeric=True, dtype=np.float64)
        # Fold 0 is the fit on all rows, so that it is the same with and without groups.
        everything = np.arange(len(rows), dtype=np.int32)
        folds = [("nothing", everything, everything[:0])]
        if groups is not None:
            held_out = leave_one_source_out(_names(groups, rows))
            folds += [(fold.held_out, fold.train, fold.test) for fold in held_out]
        scaled = np.ones(rows.shape[1], dtype=bool)
        scalers = [Scaler.fit(rows[train], scaled) for _, train, _ in folds]
        members = tuple(
            Member(
                seed,
                i,
                name,
                train,
                scaler.mean,
                scaler.std,
                *target_scale(target[train], recipe),
            )
            for i, ((name, train, _), scaler) in enumerate(zip(folds, scalers, strict=True))
            for seed in seeds
        )
        plan = TrainingPlan(rows.astype(np.float32), target.astype(np.float32), members, recipe)
        networks = train_members(
            plan, engine=self.engine, device=self.device, threads=self.threads
        ).networks
        count = len(seeds)
        self.networks_ = networks[:count]
        self.mean_, self.std_ = scalers[0].mean, scalers[0].std
        for name in ("groups_", "calibration_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        if groups is not None:
            self.groups_ = tuple(name for name, _, _ in folds[1:])
            points = []
            for i, (_, _, test) in enumerate(folds[1:], 1):
                unseen = scalers[i].transform(rows[test])
                own = networks[i * count : (i + 1) * count]
                mu, sigma = _moments([network.predict(unseen) for network in own])
                points.append(Points(error=np.abs(target[test] - mu), sigma=sigma))
            self.calibration_ = tuple(points)
        return self

    def predict(
        self,
        X: ArrayLike,  # noqa: N803
        return_std: bool = False,  # noqa: FBT001, FBT002 (as in scikit-learn's own regressors)
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the ensemble's mean for each row; with `return_std` the members' spread too.

        The spread has ddof=1, and is 0 with a single seed.
        """
        mu, sigma = self._predict(X)
        return (mu, sigma) if return_std else mu

    def predict_interval(
        self,
        X: ArrayLike,  # noqa: N803
        *,
        level: float | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lower and the upper bound for each row, calibrated over groups.

        See `loso.intervals`. `level` is by default what the number of groups supports well;
        BadSettings for one that they do not support, and after a fit without groups.
        """
        check_is_fitted(self)
        if not hasattr(self, "calibration_"):
            raise BadSettings(
                "intervals are calibrated over groups, and there were none",
                fix="fit(X, y, groups=...) with the group of every row, such as its source clip",
            )
        chosen = choose_level(len(self.calibration_), level)
        mu, sigma = self._predict(X)
        half = fit_rule(self.calibration_, [chosen]).half_width(sigma, chosen)
        return mu - half, mu + half

    def _predict(self, X: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: N803
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        inputs = (rows - self.mean_) / self.std_
        return _moments([network.predict(inputs) for network in self.networks_])


def _names(groups: ArrayLike, rows: NDArray[np.float64]) -> NDArray[np.str_]:
    """Return the group of each row as text; BadSettings where a row has none."""
    check_consistent_length(rows, groups)
    given: list[Any] = np.asarray(groups, dtype=object).tolist()
    if any(name is None or name != name for name in given):  # noqa: PLR0124 (NaN differs from itself)
        raise BadSettings("a row has no group", fix="name the group of every row, or drop the row")
    return np.array([str(name) for name in given])


def _moments(
    scores: Sequence[NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    stacked = np.stack(scores)
    spread = stacked.std(axis=0, ddof=1) if len(stacked) > 1 else np.zeros(stacked.shape[1])
    return stacked.mean(axis=0), spread
