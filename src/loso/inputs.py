"""What goes into a network: raw inputs of every row, and what is fitted on training rows only.

A row's inputs are the canonical-6 features, then the codec block (schema.CODEC_BLOCK_COLUMNS).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.corpus.load import Corpus
from loso.schema import CANONICAL_6, ENCODER_VOCAB, encoder_index
from loso.video.encoders import preset_rank

__all__ = ["NEUTRAL", "Inputs", "Scaler", "build_inputs"]

NEUTRAL = 0.5
"""`preset_norm` where no preset is recorded, `crf_norm` where the corpus holds one quality."""

_LEAST_STD = 1e-8


@dataclass(frozen=True)
class Inputs:
    """Raw inputs (rows, 20) and target (rows,) in float64, and the constants behind them.

    `cq_min` and `cq_max` are the corpus's range behind `crf_norm`: constants of the corpus, not
    fitted to any fold.
    """

    matrix: NDArray[np.float64]
    target: NDArray[np.float64]
    cq_min: float
    cq_max: float
    warnings: tuple[str, ...] = ()


def build_inputs(corpus: Corpus, *, target: str = "vmaf") -> Inputs:
    """Return the inputs of every row of `corpus`, in its order."""
    rows = corpus.rows
    cq = rows["cq"].to_numpy()
    low, high = float(cq.min()), float(cq.max())
    crf_norm = (cq - low) / (high - low) if high > low else np.full(len(cq), NEUTRAL)
    preset_norm, warnings = _preset_norm(rows)
    one_hot = np.eye(len(ENCODER_VOCAB))[[encoder_index(name) for name in rows["encoder"]]]
    return Inputs(
        matrix=np.column_stack(
            [rows.select(CANONICAL_6).to_numpy(), one_hot, preset_norm, crf_norm]
        ),
        target=rows[target].to_numpy(),
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
    def fit(cls, train: NDArray[np.float64]) -> Scaler:
        """Return the scaler of training rows (rows, inputs): ddof=0, a std under 1e-8 becomes 1."""
        count = len(CANONICAL_6)
        mean, std = np.zeros(train.shape[1]), np.ones(train.shape[1])
        mean[:count] = train[:, :count].mean(axis=0)
        spread = train[:, :count].std(axis=0)
        std[:count] = np.where(spread < _LEAST_STD, 1.0, spread)
        return cls(mean, std)

    def transform(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return standardised rows."""
        return (rows - self.mean) / self.std
