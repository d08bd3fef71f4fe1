"""The models that ship: every seed fitted once more, on all rows, and turned into graphs.

Leave-one-source-out said how well the recipe does on sources it has not seen; no source is held
back from the models that are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.corpus.load import Corpus
from loso.corpus.view import view
from loso.crossval import target_scale
from loso.engine import Member, Network, TrainingPlan, choose, train_members
from loso.errors import Refused
from loso.inputs import Inputs, Scaler, build_inputs
from loso.intervals import IntervalsFile
from loso.model.files import ENSEMBLE_OUTPUTS, MEMBER_OUTPUTS
from loso.model.onnx_build import ensemble_graph, member_graph
from loso.model.onnx_graph import Session, check_graph
from loso.model.sources import hash_sources, hashed_columns
from loso.progress import Progress, silent
from loso.recipe import Compute, Recipe
from loso.schema import VMAF_RANGE

__all__ = ["FINAL_FOLD", "FinalFit", "Graphs", "fit_final", "make_graphs"]

FINAL_FOLD: Final = 2**31 - 1
"""The final fit's address among the folds of a seed: no corpus has as many sources, so its first
weights, order and dropout are its own, and stay when a source is added."""

_TARGET_RANGES: Final = {"vmaf": VMAF_RANGE}
_PARITY_SHARE: Final = 1e-5
"""How far a graph's float32 score may lie from the trained weights in float64, as a share of the
largest score: a hundred roundings, as layers of hundreds of sums add up. Of VMAF 0.001 points."""

_CHECKED_BATCHES: Final = (1, 7, 1000)


@dataclass(frozen=True)
class FinalFit:
    """Networks by seed, the scaler they share, and the rows that both were fitted on."""

    recipe: Recipe
    engine: str
    rows: pl.DataFrame
    inputs: Inputs
    scaler: Scaler
    networks: Mapping[int, Network]

    def predict(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the score of each network for raw inputs (rows, inputs): (networks, rows)."""
        standardised = self.scaler.transform(raw)
        return np.stack([network.predict(standardised) for network in self.networks.values()])

    @property
    def n_features(self) -> int:
        """How many inputs are features; codec block and conditions stand after them."""
        return len(self.inputs.features)

    @property
    def source_hashes(self) -> dict[str, str]:
        """A hash of the rows of each source of the fit, by its name."""
        recipe = self.recipe
        columns = hashed_columns(recipe.inputs, recipe.unit, recipe.target)
        return hash_sources(self.rows, columns)

    @property
    def target_range(self) -> tuple[float, float] | None:
        """The range that the target cannot leave; None where none is known."""
        return _TARGET_RANGES.get(self.recipe.target)


@dataclass(frozen=True)
class Graphs:
    """The bytes of every member's graph by seed, and of the ensemble's."""

    members: Mapping[int, bytes]
    ensemble: bytes
    ensemble_outputs: tuple[str, ...]


def fit_final(
    corpus: Corpus,
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    exclude_sources: Sequence[str] = (),
    compute: Compute | None = None,
    progress: Progress = silent,
) -> FinalFit:
    """Return a network for each seed, fitted on every row whose source is not excluded."""
    compute = compute or Compute()
    engine, device = choose(compute.engine, compute.device)
    rows = view(corpus, recipe, exclude_sources)
    inputs = build_inputs(rows, recipe)
    scaler = Scaler.fit(inputs.matrix, inputs.scaled)
    scale = target_scale(inputs.target, recipe)
    every_row = np.arange(len(rows), dtype=np.int32)
    plan = TrainingPlan(
        inputs=inputs.matrix.astype(np.float32),
        target=inputs.target.astype(np.float32),
        members=tuple(
            Member(
                seed,
                FINAL_FOLD,
                "nothing (the final fit)",
                every_row,
                scaler.mean,
                scaler.std,
                *scale,
            )
            for seed in seeds
        ),
        recipe=recipe,
    )
    trained = train_members(
        plan, engine=engine, device=device, threads=compute.threads, progress=progress
    )
    return FinalFit(
        recipe=recipe,
        engine=engine if device == "cpu" else f"{engine}:{device}",
        rows=rows.rows,
        inputs=inputs,
        scaler=scaler,
        networks=dict(zip(seeds, trained.networks, strict=True)),
    )


def make_graphs(fit: FinalFit, intervals: IntervalsFile | None) -> Graphs:
    """Return the graphs of a fit, each run in onnxruntime and held against the trained weights.

    The ensemble's has bounds where there are intervals: those of a row at their default level.
    Refused where a graph gives something else than the weights.
    """
    members = {
        seed: member_graph(network, n_features=fit.n_features)
        for seed, network in fit.networks.items()
    }
    ensemble = ensemble_graph(
        list(fit.networks.values()),
        feature_mean=fit.scaler.mean[: fit.n_features],
        feature_std=fit.scaler.std[: fit.n_features],
        rule=intervals.by_pool[intervals.unit] if intervals else None,
        level=intervals.default_level if intervals else None,
        target_range=fit.target_range,
    )
    outputs = ENSEMBLE_OUTPUTS if intervals else ENSEMBLE_OUTPUTS[:2]
    graphs = Graphs(members, ensemble, outputs)
    _check_parity(fit, graphs, intervals)
    return graphs


def _check_parity(fit: FinalFit, graphs: Graphs, intervals: IntervalsFile | None) -> None:
    width = fit.n_features
    widths = (width, fit.inputs.matrix.shape[1] - width)
    sessions = {
        f"seed {seed}": Session(
            check_graph(content, where=f"seed {seed}", outputs=MEMBER_OUTPUTS, widths=widths)
        )
        for seed, content in graphs.members.items()
    }
    ensemble = Session(
        check_graph(
            graphs.ensemble, where="ensemble", outputs=graphs.ensemble_outputs, widths=widths
        )
    )
    for raw in _rows_to_check(fit.inputs.matrix):
        scores = fit.predict(raw)
        standardised = fit.scaler.transform(raw)
        tolerances = _tolerances(fit, scores, intervals)
        for (name, session), expected in zip(sessions.items(), scores, strict=True):
            found = session.run(standardised[:, :width], standardised[:, width:])
            output = MEMBER_OUTPUTS[0]
            _hold(name, output, found[output], expected, tolerances[output])
        found = ensemble.run(raw[:, :width], standardised[:, width:])
        for name, expected in _aggregated(fit, scores, intervals).items():
            _hold("ensemble", name, found[name], expected, tolerances[name])


def _rows_to_check(matrix: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return rows of training, and rows drawn within the range of each input, in each batch."""
    random = np.random.default_rng(0)
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    batches = []
    for size in _CHECKED_BATCHES:
        batches.append(matrix[random.integers(0, len(matrix), size)])
        batches.append(random.uniform(low, high, (size, matrix.shape[1])))
    return batches


def _aggregated(
    fit: FinalFit, scores: NDArray[np.float64], intervals: IntervalsFile | None
) -> dict[str, NDArray[np.float64]]:
    mu, sigma = scores.mean(axis=0), scores.std(axis=0, ddof=1)
    expected = {"mu": mu, "sigma": sigma}
    if intervals:
        half = intervals.by_pool[intervals.unit].half_width(sigma, intervals.default_level)
        low, high = fit.target_range or (-np.inf, np.inf)
        expected["lower"] = np.clip(mu - half, low, high)
        expected["upper"] = np.clip(mu + half, low, high)
    return expected


def _tolerances(
    fit: FinalFit, scores: NDArray[np.float64], intervals: IntervalsFile | None
) -> dict[str, float]:
    """Return how far each output may lie from the trained weights, in the target's unit.

    All follows from the scores' own error: a spread is of two of them, and a bound takes that of
    sigma times the quantile.
    """
    one = _PARITY_SHARE * float(max(np.abs(scores).max(), fit.inputs.target.std()))
    tolerances = {MEMBER_OUTPUTS[0]: one, "mu": one, "sigma": 2 * one}
    if intervals:
        rule, level = intervals.by_pool[intervals.unit], intervals.default_level
        least, wider = rule.half_width(np.array([0.0, 1.0]), level)
        bound = one + 2 * one * float(wider - least) + _PARITY_SHARE * float(least)
        tolerances |= {"lower": bound, "upper": bound}
    return tolerances


def _hold(
    graph: str,
    output: str,
    found: NDArray[np.float32],
    expected: NDArray[np.float64],
    tolerance: float,
) -> None:
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance:
        raise Refused(
            f"the graph's {output} is not that of the trained weights",
            where=graph,
            expected=f"a difference of at most {tolerance:g}",
            found=f"{difference:g}",
            fix="look for a feature that hardly varies: float32 cannot tell its values apart",
        )
