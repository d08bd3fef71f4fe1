"""Frames or clips: what counts as one row of training and of judgement.

Frames of a clip are far from independent, and a human score belongs to the whole clip; with clips
as the unit a row is one encode, its features averaged over frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from loso.corpus.load import Corpus
from loso.errors import BadCorpus

__all__ = ["as_clips", "statistic_column"]


def statistic_column(feature: str, statistic: str) -> str:
    """Return the column of a feature's statistic; the mean keeps the feature's own name.

    >>> statistic_column("adm2", "p5")
    'adm2_p5'
    """
    return feature if statistic == "mean" else f"{feature}_{statistic}"


def as_clips(
    corpus: Corpus,
    features: Sequence[str],
    *,
    statistics: Sequence[str] = ("mean",),
    drop_first_frame: bool = False,
) -> Corpus:
    """Return `corpus` with one row a clip, in order of first appearance, and `n_frames` beside it.

    A clip is what `corpus.identity` without `frame_index` names. Numbers that vary within it are
    averaged, other values that vary are left out; `features` are columns that get `statistics`
    too. `drop_first_frame` leaves out frame 0, whose motion is 0 by definition. BadCorpus where a
    clip has no other frame.
    """
    rows, names = corpus.rows, [name for name in corpus.identity if name != "frame_index"]
    if drop_first_frame:
        rows = rows.filter(pl.col("frame_index") > 0)
        lost = corpus.rows.select(names).unique().height - rows.select(names).unique().height
        if lost:
            raise BadCorpus(
                f"{lost} clips have no frame but frame 0",
                where=str(corpus.path),
                fix="keep frame 0, or measure more frames",
            )
    others = [name for name in rows.columns if name not in {*names, "n_frames"}]
    numbers = [name for name in others if rows[name].dtype.is_numeric()]
    constant = rows.group_by(names).agg(pl.col(others).n_unique() == 1).select(others)
    rest = [name for name in others if name not in numbers and constant[name].all()]
    means = [
        # The mean of equal numbers is not always that number.
        pl.when(pl.col(n).min() == pl.col(n).max()).then(pl.col(n).first()).otherwise(
            pl.col(n).mean()
        ).alias(n)
        for n in numbers
        if n != "frame_index"
    ]  # fmt: skip
    of_frames = {
        "p5": lambda name: pl.col(name).quantile(0.05, "linear"),
        "std": lambda name: pl.col(name).std(ddof=0),
    }
    more = [
        of_frames[statistic](name).alias(statistic_column(name, statistic))
        for statistic in statistics
        if statistic != "mean"
        for name in features
    ]
    clips = rows.group_by(names, maintain_order=True).agg(
        pl.col("frame_index").min(), *means, pl.col(rest).first(), *more, n_frames=pl.len()
    )
    return replace(corpus, rows=clips)
