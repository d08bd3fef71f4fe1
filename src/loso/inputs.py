"""What goes into a network: raw inputs of every row, and what is fitted on training rows only.

A row's inputs are its features, then the codec block (schema.CODEC_BLOCK_COLUMNS), then the
conditions that a recipe asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.corpus.load import Corpus
from loso.corpus.units import statistic_column
from loso.features import Condition, column_values
from loso.recipe import InputSpec, Recipe
from loso.schema import CODEC_BLOCK_COLUMNS, ENCODER_VOCAB, encoder_index
from loso.video.encoders import preset_rank

__all__ = [
    "NEUTRAL",
    "Inputs",
    "Scaler",
    "block_names",
    "build_inputs",
    "codec_block",
    "feature_names",
    "input_matrix",
    "read_columns",
]

NEUTRAL = 0.5
"""`preset_norm` where no preset is recorded, `crf_norm` where the corpus holds one quality."""

_LEAST_STD: Final = 1e-8


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


def block_names(spec: InputSpec) -> tuple[str, ...]:
    """Return what stands beside the features: the codec block's columns, then the conditions."""
    return (*(CODEC_BLOCK_COLUMNS if spec.codec_block else ()), *spec.conditions)


def read_columns(spec: InputSpec) -> tuple[str, ...]:
    """Return the columns of a corpus that hold what `spec` feeds, the codec block's apart.

    >>> read_columns(InputSpec(conditions=("log2:fps",)))[-2:]
    ('motion2', 'fps')
    """
    conditions = (Condition.parse(text).column for text in spec.conditions)
    return tuple(dict.fromkeys([*spec.features.columns, *conditions]))


def build_inputs(corpus: Corpus, recipe: Recipe | None = None) -> Inputs:
    """Return the inputs and the target of every row, in its order.

    `corpus` is what `loso.corpus.view.view` makes of one for `recipe`. BadCorpus where a column
    that the recipe asks for is not there or not whole.
    """
    recipe = recipe or Recipe()
    spec, rows, where = recipe.inputs, corpus.rows, str(corpus.path)
    cq = rows["cq"].to_numpy()
    low, high = float(cq.min()), float(cq.max())
    matrix, warnings = input_matrix(rows, spec, (low, high), where)
    return Inputs(
        matrix=matrix,
        target=column_values(rows, recipe.target, where),
        features=feature_names(spec),
        block=block_names(spec),
        cq_min=low,
        cq_max=high,
        warnings=warnings,
    )


def input_matrix(
    rows: pl.DataFrame, spec: InputSpec, cq_range: tuple[float, float], where: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the raw inputs (rows, inputs) that `spec` makes of rows, and what to tell the user.

    `cq_range` is that of training. BadCorpus, which names `where`, for a column that is not there
    or not whole.
    """
    columns = [
        statistic_column(name, statistic)
        for name in spec.features.columns
        for statistic in spec.statistics
    ]
    inputs = [column_values(rows, name, where) for name in columns]
    warnings: tuple[str, ...] = ()
    if spec.codec_block:
        block, warnings = codec_block(rows, cq_range)
        inputs += [*block.T]
    inputs += [Condition.parse(text).values(rows, where) for text in spec.conditions]
    return np.column_stack(inputs), warnings


def codec_block(
    rows: pl.DataFrame, cq_range: tuple[float, float]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the codec block (rows, 14) of rows with `encoder` and `cq`, and what to tell the user.

    `cq_range` is what `crf_norm` counts from 0 to 1 on: that of the training corpus.
    """
    low, high = cq_range
    cq = rows["cq"].to_numpy()
    crf_norm = (cq - low) / (high - low) if high > low else np.full(len(cq), NEUTRAL)
    preset_norm, warnings = _preset_norm(rows)
    one_hot = np.eye(len(ENCODER_VOCAB))[[encoder_index(name) for name in rows["encoder"]]]
    return np.column_stack([one_hot, preset_norm, crf_norm]), warnings


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
