"""What goes into a network: raw inputs of every row, and what is fitted on training rows only.

A row's inputs are its features, then the codec block (schema.CODEC_BLOCK_COLUMNS), then the
conditions that a recipe asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.corpus.load import Corpus
from loso.corpus.units import statistic_column
from loso.features import Condition, column_values
from loso.recipe import InputSpec, Recipe
from loso.schema import CODEC_BLOCK_COLUMNS, ENCODER_VOCAB, encoder_index
from loso.video.encoders import preset_rank

__all__ = ["NEUTRAL", "Inputs", "Scaler", "build_inputs", "feature_names"]

NEUTRAL = 0.5
"""`preset_norm` where no preset is recorded, `crf_norm` where the corpus holds one quality."""

_LEAST_STD = 1e-8


@dataclass(frozen=True)
class Inputs:
    """Raw inputs (rows, inputs) and target (rows,) in float64, and the constants behind them.

    `features` names the first inputs, `block` those after them: codec block and conditions.
    `cq_min` and `cq_max` are the corpus's range behind `crf_norm`: constants of the corpus, not
    fitted to any fold.
    """

    matrix: NDArray[np.float64]
    target: NDArray[np.float64]
    features: tuple[str, ...]
    block: tuple[str, ...]
    cq_min: float
    cq_max: float
    warnings: tuple[str, ...] = ()

    @property
    def scaled(self) -> NDArray[np.bool_]:
        """Which inputs a scaler standardises: all but those of the codec block."""
        return np.array([name not in CODEC_BLOCK_COLUMNS for name in self.features + self.block])


def feature_names(spec: InputSpec) -> tuple[str, ...]:
    """Return the features that `spec` feeds, a feature's statistics side by side.

    >>> feature_names(InputSpec(statistics=("mean", "std")))[:3]
    ('adm2', 'adm2_std', 'vif_scale0')
    """
    return tuple(
        statistic_column(name, statistic)
        for name in spec.features.features
        for statistic in spec.statistics
    )


def build_inputs(corpus: Corpus, recipe: Recipe | None = None) -> Inputs:
    """Return the inputs and the target of every row, in its order.

    `corpus` is what `loso.corpus.view.view` makes of one for `recipe`. BadCorpus where a column
    that the recipe asks for is not there or not whole.
    """
    recipe = recipe or Recipe()
    spec, rows, where = recipe.inputs, corpus.rows, str(corpus.path)
    columns = [
        statistic_column(name, statistic)
        for name in spec.features.columns
        for statistic in spec.statistics
    ]
    cq = rows["cq"].to_numpy()
    low, high = float(cq.min()), float(cq.max())
    warnings: tuple[str, ...] = ()
    block: list[NDArray[np.float64]] = []
    names: list[str] = []
    if spec.codec_block:
        crf_norm = (cq - low) / (high - low) if high > low else np.full(len(cq), NEUTRAL)
        preset_norm, warnings = _preset_norm(rows)
        one_hot = np.eye(len(ENCODER_VOCAB))[[encoder_index(name) for name in rows["encoder"]]]
        block += [*one_hot.T, preset_norm, crf_norm]
        names += CODEC_BLOCK_COLUMNS
    for text in spec.conditions:
        block.append(Condition.parse(text).values(rows, where))
        names.append(text)
    return Inputs(
        matrix=np.column_stack([*(column_values(rows, name, where) for name in columns), *block]),
        target=column_values(rows, recipe.target, where),
        features=feature_names(spec),
        block=tuple(names),
        cq_min=low,
        cq_max=high,
        warnings=warnings,
    )


def _preset_norm(rows: pl.DataFrame) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return each row's preset rank, 0 fastest to 1 slowest, and what could not be ranked."""
    if "preset" not in rows.columns:
        return np.full(rows.height, NEUTRAL), ()
    names = rows.select("encoder", pl.col("preset").cast(pl.String))
    ranks = {pair: preset_rank(*pair) for pair in names.drop_nulls().unique().rows()}
    unranked = sorted(pair for pair, rank in ranks.items() if rank is None)
    norm = [NEUTRAL if (rank := ranks.get(pair)) is None else rank for pair in names.rows()]
    return np.array(norm), tuple(
        f"{encoder} preset {preset!r} has no rank: its rows take preset_norm {NEUTRAL}"
        for encoder, preset in unranked
    )


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of every input; 0 and 1 for the codec block, kept as it is."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def fit(cls, train: NDArray[np.float64], scaled: NDArray[np.bool_]) -> Scaler:
        """Return the scaler of training rows (rows, inputs), of the inputs that are `scaled`.

        ddof=0; a standard deviation under 1e-8 becomes 1.
        """
        spread = train.std(axis=0)
        return cls(
            mean=np.where(scaled, train.mean(axis=0), 0.0),
            std=np.where(scaled & (spread >= _LEAST_STD), spread, 1.0),
        )

    def transform(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return standardised rows."""
        return (rows - self.mean) / self.std
