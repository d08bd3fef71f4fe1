"""A model on a corpus it has never seen: agreement, coverage of its intervals, drift of inputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.corpus.load import Corpus
from loso.features import column_values
from loso.intervals import POOLS
from loso.metrics import plcc, rmse, srocc
from loso.metrics.pooling import pool_scores
from loso.predict import Prediction, Predictor, number_clips
from loso.schema import CANONICAL_6

__all__ = ["Agreement", "Evaluation", "InputDrift", "PoolEvaluation", "evaluate_model"]

_CANNOT_TELL: Final = (
    "the model does not name the corpus of its training: whether it has seen these rows cannot be "
    "told"
)
_NOT_UNSEEN: Final = (
    "THIS IS THE CORPUS OF THE MODEL'S OWN TRAINING: what follows says nothing about sources that "
    "it has not seen; its model card holds those figures"
)

_Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How predictions agree with the truth; `reason` says why a correlation is None.

    `coverage` is the share of points inside their interval and `mean_width` its mean width; both
    None without intervals.
    """

    n: int
    plcc: float | None
    srocc: float | None
    rmse: float
    reason: str | None
    coverage: float | None
    mean_width: float | None


@dataclass(frozen=True)
class PoolEvaluation:
    """One pool: all points together, and the points of each source.

    Of all together, coverage and width are means over sources, each weighing the same.
    """

    pooled: Agreement
    by_source: dict[str, Agreement]


@dataclass(frozen=True)
class InputDrift:
    """An input here against training.

    `mean_shift` is how far its mean lies from that of training, in standard deviations of training
    (None for `cq`); `outside_share` the share of rows outside its range there, None where the model
    does not record one.
    """

    name: str
    mean_shift: float | None
    outside_share: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a corpus; `unseen` is None where the model does not name its own."""

    model: str
    corpus: str
    corpus_sha256: str
    unseen: bool | None
    target: str
    rows: int
    clips: int
    level: float | None
    interval: str
    pools: dict[str, PoolEvaluation]
    inputs: tuple[InputDrift, ...]
    encoders_without_rows: dict[str, int]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


def evaluate_model(predictor: Predictor, corpus: Corpus) -> Evaluation:
    """Return how the model does on every row and every clip of `corpus`.

    Intervals are those of the model's default level. BadCorpus where the model's target is not in
    the corpus. On the corpus of its own training the figures say nothing about new sources: a
    warning says so first.
    """
    target = predictor.manifest.target
    y_true = column_values(corpus.rows, target, str(corpus.path))
    prediction = predictor.predict(corpus.rows, key=corpus.key)
    keys = [name for name in corpus.identity if name != "frame_index"]
    truth = {"frame": y_true, **pool_scores(y_true, number_clips(corpus.rows.select(keys)))}
    unseen, notes = _is_unseen(predictor, corpus)
    frames = prediction.frames
    strangers = frames.filter("unseen_encoder").group_by("encoder").len().sort("encoder")
    return Evaluation(
        model=predictor.manifest.id,
        corpus=corpus.path.name,
        corpus_sha256=corpus.sha256,
        unseen=unseen,
        target=target,
        rows=frames.height,
        clips=prediction.clips.height,
        level=prediction.level,
        interval=prediction.interval,
        pools={pool: _judge(pool, truth[pool], prediction) for pool in POOLS},
        inputs=_drift(predictor, corpus.rows),
        encoders_without_rows=dict(strangers.iter_rows()),
        warnings=(*notes, *prediction.warnings),
    )


def _is_unseen(predictor: Predictor, corpus: Corpus) -> tuple[bool | None, tuple[str, ...]]:
    known = predictor.model.corpus_sha256
    if not known:
        return None, (_CANNOT_TELL,)
    return (True, ()) if corpus.sha256 not in known else (False, (_NOT_UNSEEN,))


def _judge(pool: str, y_true: _Vector, prediction: Prediction) -> PoolEvaluation:
    table, prefix = prediction.frames, ""
    if pool != "frame":
        table, prefix = prediction.clips, f"{pool}_"
    source = table["src"].to_numpy()
    mu, low, high = (table[prefix + name].to_numpy() for name in ("mu", "lower", "upper"))
    inside = width = None
    if prediction.level is not None:
        inside, width = (low <= y_true) & (y_true <= high), high - low

    def agreement(own: NDArray[np.bool_]) -> Agreement:
        linear, rank = plcc(y_true[own], mu[own]), srocc(y_true[own], mu[own])
        return Agreement(
            n=int(own.sum()),
            plcc=linear.value,
            srocc=rank.value,
            rmse=rmse(y_true[own], mu[own]),
            reason=linear.reason or rank.reason,
            coverage=None if inside is None else float(inside[own].mean()),
            mean_width=None if width is None else float(width[own].mean()),
        )

    by_source = {str(name): agreement(source == name) for name in np.unique(source)}
    pooled = asdict(agreement(np.ones(len(source), dtype=bool)))
    for name in ("coverage", "mean_width"):
        values = [getattr(own, name) for own in by_source.values()]
        pooled[name] = None if inside is None else fmean(values)
    return PoolEvaluation(Agreement(**pooled), by_source)


def _drift(predictor: Predictor, rows: pl.DataFrame) -> tuple[InputDrift, ...]:
    member = predictor.model.members[0]
    ranges = predictor.training_ranges
    drifts = []
    for name in (*CANONICAL_6, "cq"):
        values = rows[name].to_numpy()
        shift = outside = None
        if name in CANONICAL_6:
            i = CANONICAL_6.index(name)
            shift = float((values.mean() - member.mean[i]) / member.std[i])
        if name in ranges:
            low, high = ranges[name]
            outside = float(np.mean((values < low) | (values > high)))
        drifts.append(InputDrift(name, shift, outside, float(values.min()), float(values.max())))
    return tuple(drifts)
