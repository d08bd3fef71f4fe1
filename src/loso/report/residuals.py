"""Where predictions are wrong: against the quality setting, against the score, and row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl
from plotly import graph_objects as go

from loso.report.figures import (
    SPLIT,
    bars,
    encoders_in,
    escaped,
    figure,
    markers,
    rounded,
    row_names,
    shortened,
    thinned,
)
from loso.report.parts import Chart, Note, Part, Section, Table
from loso.report.reading import RunRecords

__all__ = ["section", "worst_rows"]

_MOST_POINTS: Final = 3000
_WORST: Final = 20
_BINS: Final = 24


def section(records: RunRecords) -> Section:
    """Return the errors of out-of-fold predictions, mean of the seeds less the measured score."""
    return Section("errors", "Where it is wrong", tuple(_parts(records)))


def _parts(records: RunRecords) -> Iterator[Part]:
    yield _against_quality(records)
    yield _against_score(records)
    worst = worst_rows(records.rows)
    clips = worst.select("src", "encoder", "preset", "cq").unique().height
    yield _table(records, worst)
    yield Note(
        f"The {worst.height} worst rows come from {clips} encodes of "
        f"{worst['src'].n_unique()} sources.{records.unmapped}"
    )


def worst_rows(rows: pl.DataFrame, most: int = _WORST) -> pl.DataFrame:
    """Return the rows with the largest absolute error, the largest first; ties as they stand."""
    place = pl.col("error").abs().arg_sort(descending=True)
    return rows.select(pl.all().gather(place.head(most)))


def _against_quality(records: RunRecords) -> Chart:
    binned = (
        records.rows.group_by("encoder", "cq")
        .agg(
            low=pl.col("error").quantile(0.05),
            mean=pl.col("error").mean(),
            high=pl.col("error").quantile(0.95),
            rows=pl.len(),
        )
        .sort("cq")
    )
    traces, looks = [], markers(encoders_in(records.rows))
    for encoder in looks:
        own = binned.filter(pl.col("encoder") == encoder)
        traces.append(
            go.Scatter(
                x=own["cq"].to_list(),
                y=[rounded(value) for value in own["mean"]],
                error_y=bars(*(own[name].to_list() for name in ("low", "mean", "high"))),
                customdata=own["rows"].to_list(),
                mode="lines+markers",
                line={"width": 1, "color": looks[encoder]["color"]},
                marker={**looks[encoder], "size": 8},
                name=escaped(shortened(encoder)),
                meta=escaped(encoder),
                hovertemplate=(
                    "%{meta} cq %{x}<br>mean error %{y:.4g} of %{customdata} rows<extra></extra>"
                ),
            )
        )
    return Chart(
        "Error against the quality setting",
        figure(traces, "cq, the encoder's own number", f"error in {records.recipe.target}"),
        "Mean error of each encoder at each setting, predicted less measured; bars hold nine of "
        "ten rows.",
    )


def _against_score(records: RunRecords) -> Chart:
    rows, left_out = thinned(records.rows, _MOST_POINTS)
    traces, looks = [], markers(encoders_in(records.rows))
    for encoder in encoders_in(rows):
        own = rows.filter(pl.col("encoder") == encoder)
        names = row_names(own)
        traces.append(
            go.Scatter(
                x=[rounded(value) for value in own["y_true"]],
                y=[rounded(value) for value in own["error"]],
                mode="markers",
                marker={**looks[encoder], "size": 5, "opacity": 0.6},
                name=escaped(shortened(encoder)),
                meta=escaped(encoder),
                text=[
                    f"{escaped(shortened(src))}<br>{name}"
                    for src, name in zip(own["src"], names, strict=True)
                ],
                hovertemplate=(
                    "%{text}<br>%{meta}, measured %{x:.4g}, error %{y:.4g}<extra></extra>"
                ),
            )
        )
    middle = _binned_mean(records.rows)
    traces.append(
        go.Scatter(
            x=[rounded(value) for value in middle["score"]],
            y=[rounded(value) for value in middle["mean"]],
            mode="lines",
            line={"width": 3, "color": SPLIT[2]},
            name="mean",
            hovertemplate="around %{x:.4g}: mean error %{y:.4g}<extra></extra>",
        )
    )
    target = records.recipe.target
    return Chart(
        "Error against the score",
        figure(traces, f"measured {target}", f"error in {target}"),
        f"The line is the mean over rows of a like score. {left_out}",
    )


def _binned_mean(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the mean error in equal steps of the measured score."""
    low, high = rows.select(pl.col("y_true").min(), high=pl.col("y_true").max()).row(0)
    step = (high - low) / _BINS or 1.0
    bin_of = ((pl.col("y_true") - low) / step).floor().clip(0, _BINS - 1)
    return (
        rows.group_by(bin_of.alias("bin"))
        .agg(score=pl.col("y_true").mean(), mean=pl.col("error").mean())
        .sort("bin")
    )


def _table(records: RunRecords, worst: pl.DataFrame) -> Table:
    by_frame = records.recipe.unit == "frame"
    place = "frame" if by_frame else "clip"
    column = "frame_index" if by_frame else "clip"
    columns = ("src", "encoder", "preset", "cq", place, "measured", "predicted", "error")
    texts = worst.select(
        "src",
        "encoder",
        pl.col("preset").cast(pl.String).fill_null(""),
        pl.col("cq").round_sig_figs(6).cast(pl.String).str.strip_suffix(".0"),
        (pl.col(column).cast(pl.String) if column in worst.columns else pl.lit("")).fill_null(""),
        *(
            pl.col(name).map_elements(lambda v: f"{v:.4g}", return_dtype=pl.String)
            for name in ("y_true", "y_pred")
        ),
        pl.col("error").map_elements(lambda v: f"{v:+.3g}", return_dtype=pl.String),
    )
    return Table(
        columns,
        tuple(texts.iter_rows()),
        numbers=("cq", "measured", "predicted", "error") + (("frame",) if by_frame else ()),
        caption=f"The {worst.height} worst rows, by the size of their error.",
    )
