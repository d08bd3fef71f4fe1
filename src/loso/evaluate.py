"""A model on a corpus it has never seen: agreement, coverage of its intervals, drift of inputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.corpus.load import Corpus
from loso.features import column_values
from loso.inputs import block_names, feature_names
from loso.intervals import pools_of
from loso.metrics import plcc, rmse, srocc
from loso.metrics.mapping import map_out_of_fold
from loso.metrics.pooling import pool_scores
from loso.model.feed import Feed, make_feed
from loso.model.sources import hash_sources, hashed_columns
from loso.predict import Prediction, Predictor, number_clips
from loso.recipe import is_mapped

__all__ = ["Agreement", "Evaluation", "InputDrift", "PoolEvaluation", "evaluate_model"]

_CANNOT_TELL: Final = (
    "the model does not record the sources of its training: whether it has seen these rows cannot "
    "be told"
)
_NOT_UNSEEN: Final = (
    "THE MODEL WAS TRAINED ON EVERY SOURCE OF THIS CORPUS: what follows says nothing about sources "
    "that it has not seen; its model card holds those figures"
)

_LEAST_SOURCES: Final = 3
"""A mapping is fitted without the source that it is applied to: two others are the fewest."""

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

    Of all together, coverage and width are means over sources, each weighing the same. `mapped` is
    all together after a rising cubic that was fitted on the other sources each time: where the
    target is a panel's scale, not VMAF, and there are three sources or more. It has no intervals.
    """

    pooled: Agreement
    by_source: dict[str, Agreement]
    mapped: Agreement | None = None


@dataclass(frozen=True)
class InputDrift:
    """An input here against training.

    `mean_shift` is how far its mean lies from that of training, in standard deviations of training
    (None for `cq`); `outside_share` the share of rows, or of clips, outside its range there, None
    where the model does not record one.
    """

    name: str
    mean_shift: float | None
    outside_share: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a corpus.

    `trained_on` names the sources of the corpus that training saw and how that shows: by `name`, by
    their `rows`, or by the whole `corpus`. `unseen` is None where the model does not record them.
    """

    model: str
    corpus: str
    corpus_sha256: str
    unseen: bool | None
    trained_on: dict[str, str]
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

    Sources are those of the column that training grouped by, where the corpus has it.
    Intervals are those of the model's default level. BadCorpus where the model's target is not in
    the corpus. On sources of its own training the figures say nothing about new ones: a warning
    says so first. A source is told by its name, and by its rows under another name; with some of
    its rows and another name, or measured anew, it is not told.
    """
    target, unit = predictor.manifest.target, predictor.model.unit
    column_values(corpus.rows, target, str(corpus.path))
    feed = make_feed(predictor.model, corpus.rows, corpus.key, also=[target])
    prediction = predictor.score(feed)
    y_true = feed.rows[target].to_numpy()
    row_pool, *clip_pools = pools_of(unit)
    truth = {row_pool: y_true}
    if clip_pools:
        keys = [name for name in feed.names if name != "frame_index"]
        truth |= pool_scores(y_true, number_clips(feed.rows.select(keys)))
    trained_on, notes = _trained_on(predictor, corpus, feed)
    rows = prediction.frames
    strangers = rows.filter("unseen_encoder").group_by("encoder").len().sort("encoder")
    return Evaluation(
        model=predictor.manifest.id,
        corpus=corpus.path.name,
        corpus_sha256=corpus.sha256,
        unseen=None if trained_on is None else not trained_on,
        trained_on=trained_on or {},
        target=target,
        rows=int(prediction.clips["n_frames"].sum()),
        clips=prediction.clips.height,
        level=prediction.level,
        interval=prediction.interval,
        pools={
            pool: _judge(pool, of_pool, prediction, predictor) for pool, of_pool in truth.items()
        },
        inputs=_drift(predictor, feed),
        encoders_without_rows=dict(strangers.iter_rows()),
        warnings=(*notes, *prediction.warnings),
    )


def _trained_on(
    predictor: Predictor, corpus: Corpus, feed: Feed
) -> tuple[dict[str, str] | None, tuple[str, ...]]:
    """Return the sources that training saw, None where that cannot be told, and what to tell."""
    model, known = predictor.model, predictor.manifest.training_sources
    target = predictor.manifest.target
    columns = hashed_columns(model.inputs, model.unit, target)
    found = hash_sources(feed.rows, columns, _source_column(predictor, feed.rows))
    if known is None:
        if corpus.sha256 not in model.corpus_sha256:
            return None, (_CANNOT_TELL,)
        return dict.fromkeys(found, "corpus"), (_NOT_UNSEEN,)
    rows = set(known.values())
    shared = {
        name: "name" if name in known else "rows"
        for name, of_rows in found.items()
        if name in known or of_rows in rows
    }
    if not shared:
        return {}, ()
    if len(shared) == len(found):
        return shared, (_NOT_UNSEEN,)
    listed = ", ".join(
        name if how == "name" else f"{name} (by its rows)" for name, how in shared.items()
    )
    warning = (
        f"THE MODEL WAS TRAINED ON {len(shared)} OF {len(found)} SOURCES: what follows says "
        f"nothing new about {listed}, nor does a figure that they are part of"
    )
    return shared, (warning,)


def _source_column(predictor: Predictor, table: pl.DataFrame) -> str:
    group = predictor.model.inputs.group_by
    return group if group in table.columns else "src"


def _judge(
    pool: str, y_true: _Vector, prediction: Prediction, predictor: Predictor
) -> PoolEvaluation:
    table, prefix = prediction.frames, ""
    if pool != predictor.model.unit:
        table, prefix = prediction.clips, f"{pool}_"
    source = table[_source_column(predictor, table)].cast(pl.String).to_numpy()
    mu, low, high = (table[prefix + name].to_numpy() for name in ("mu", "lower", "upper"))
    inside = width = None
    if prediction.level is not None:
        inside, width = (low <= y_true) & (y_true <= high), high - low

    def agreement(own: NDArray[np.bool_]) -> Agreement:
        return replace(
            _agreement(y_true[own], mu[own]),
            coverage=None if inside is None else float(inside[own].mean()),
            mean_width=None if width is None else float(width[own].mean()),
        )

    by_source = {str(name): agreement(source == name) for name in np.unique(source)}
    pooled = asdict(_agreement(y_true, mu))
    for name in ("coverage", "mean_width"):
        values = [getattr(own, name) for own in by_source.values()]
        pooled[name] = None if inside is None else fmean(values)
    mapped = None
    if is_mapped(predictor.manifest.target) and len(by_source) >= _LEAST_SOURCES:
        mapped = _agreement(y_true, map_out_of_fold(y_true, mu, source))
    return PoolEvaluation(Agreement(**pooled), by_source, mapped)


def _agreement(y_true: _Vector, mu: _Vector) -> Agreement:
    linear, rank = plcc(y_true, mu), srocc(y_true, mu)
    return Agreement(
        n=len(mu),
        plcc=linear.value,
        srocc=rank.value,
        rmse=rmse(y_true, mu),
        reason=linear.reason or rank.reason,
        coverage=None,
        mean_width=None,
    )


def _drift(predictor: Predictor, feed: Feed) -> tuple[InputDrift, ...]:
    model, ranges = predictor.model, predictor.training_ranges
    scaler = model.members[0].scaler
    places = {
        name: i for i, name in enumerate((*feature_names(model.inputs), *block_names(model.inputs)))
    }
    drifts = []
    for name, values in feed.values.items():
        shift = outside = None
        if name in places:
            i = places[name]
            shift = float((values.mean() - scaler.mean[i]) / scaler.std[i])
        if name in ranges:
            low, high = ranges[name]
            outside = float(np.mean((values < low) | (values > high)))
        drifts.append(InputDrift(name, shift, outside, float(values.min()), float(values.max())))
    return tuple(drifts)
