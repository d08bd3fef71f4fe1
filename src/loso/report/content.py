"""What a run was made of: rows by source, encoder and quality, and what rate buys which score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import polars as pl
from plotly import graph_objects as go

from loso.corpus.check import describe_corpus
from loso.recipe import is_mapped
from loso.report.figures import (
    MOST_SOURCES,
    encoders_in,
    escaped,
    figure,
    markers,
    named,
    powers,
    rounded,
    shortened,
)
from loso.report.parts import Chart, Grid, Note, Part, Section, Table
from loso.report.reading import RunRecords
from loso.schema import VMAF_RANGE

__all__ = ["section"]

_MOST_CURVES: Final = 24
_RATE: Final = "bitrate_kbps"


def section(records: RunRecords) -> Section:
    """Return the contents of a run's corpus; of its predictions alone where that is not there."""
    return Section("corpus", "The corpus", tuple(_parts(records)))


def _parts(records: RunRecords) -> Iterator[Part]:
    rows = records.rows
    yield Note(
        f"{rows.height:,} rows of {len(records.sources)} sources and "
        f"{rows['encoder'].n_unique()} encoders were held out once each."
    )
    if records.corpus is not None:
        for note in describe_corpus(records.corpus).notes:
            yield Note(note, "warn")
    yield _counts(rows)
    yield _encoders(rows)
    yield _sources(records)
    yield from _curves(records)


def _counts(rows: pl.DataFrame) -> Chart:
    sources = rows.group_by("src").len().sort("len", "src")["src"].to_list()
    shown, encoders = sources[:MOST_SOURCES], encoders_in(rows)
    counts = dict.fromkeys(((s, e) for s in shown for e in encoders), 0)
    for source, encoder, count in rows.group_by("src", "encoder").len().iter_rows():
        if (source, encoder) in counts:
            counts[source, encoder] = count
    table = [[counts[source, encoder] for encoder in encoders] for source in shown]
    trace = go.Heatmap(
        x=list(range(len(encoders))),
        y=list(range(len(shown))),
        z=table,
        text=table,
        texttemplate="%{text}",
        customdata=[[[escaped(s), escaped(e)] for e in encoders] for s in shown],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]}: %{z} rows<extra></extra>",
        colorscale="Cividis",
        showscale=False,
        zmin=0,
        zmax=max(map(max, table)),
        xgap=1,
        ygap=1,
    )
    few = f" The {len(shown)} with the fewest of {len(sources)}." * (len(shown) < len(sources))
    return Chart(
        "Rows of each source and encoder",
        figure(
            [trace],
            "",
            "",
            legend=False,
            xaxis={**named(encoders), "automargin": True},
            yaxis={**named(shown), "autorange": "reversed", "automargin": True},
        ),
        f"Sources with the fewest rows on top.{few}",
        height=110 + 24 * len(shown),
    )


def _encoders(rows: pl.DataFrame) -> Table:
    found = rows.group_by("encoder").agg(
        pl.len(), pl.col("preset").drop_nulls().unique().sort(), pl.col("cq").unique().sort()
    )
    cells = {name: of for name, *of in found.iter_rows()}
    return Table(
        ("encoder", "rows", "presets", "quality settings"),
        tuple(
            (
                name,
                f"{cells[name][0]:,}",
                " ".join(cells[name][1]) or "not recorded",
                _listed([f"{cq:g}" for cq in cells[name][2]]),
            )
            for name in encoders_in(rows)
        ),
        numbers=("rows",),
    )


def _listed(texts: list[str], most: int = 24) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return " ".join(texts[:most]) + more


def _sources(records: RunRecords) -> Table:
    """Return what each source holds; the share of rows at VMAF's top where VMAF is known."""
    target = records.recipe.target
    aggregates = [pl.len(), pl.col("encoder").n_unique(), pl.col("y_true").mean().alias("mean")]
    columns = ["source", "rows", "encoders", f"mean {target}"]
    if not is_mapped(target):
        aggregates.append((pl.col("y_true") >= VMAF_RANGE[1]).mean().alias("top"))
        columns.append(f"at {VMAF_RANGE[1]:g}")
    table = records.rows.group_by("src").agg(aggregates).sort("len", "src")
    rows: list[tuple[str, ...]] = [
        (
            str(source),
            f"{count:,}",
            str(encoders),
            f"{mean:.4g}",
            *(f"{share:.1%}" for share in top),
        )
        for source, count, encoders, mean, *top in table.iter_rows()
    ]
    return Table(
        tuple(columns),
        tuple(rows),
        numbers=tuple(columns[1:]),
        caption="Fewest rows first. Rows at the top of VMAF teach nothing about what lies above.",
    )


def _curves(records: RunRecords) -> Iterator[Part]:
    """Yield what rate buys which score, source by source; against cq where no rate is known."""
    rows, target = records.rows, records.recipe.target
    extra: list[str] = []
    if records.seen is not None:
        known = records.seen.rows
        extra = [name for name in (_RATE, "height") if name in known.columns]
        rows = rows.join(known.select("row", *extra), on="row", how="left")
    has_rate = _RATE in extra and _is_known(rows[_RATE])
    ladder = ["src", "encoder", "preset", *(["height"] if "height" in extra else [])]
    points = (
        rows.group_by(*ladder, "cq")
        .agg(x=pl.col(_RATE if has_rate else "cq").mean(), score=pl.col("y_true").mean())
        .sort(*ladder, "x")
    )
    spread = points.group_by("src").agg(pl.col("score").max() - pl.col("score").min())
    sources = spread.sort("score", "src")["src"].to_list()
    shown = sources[:_MOST_CURVES]
    x_title = "kbit/s" if has_rate else "cq"
    looks, charts = markers(encoders_in(rows)), []
    for source in shown:
        own = points.filter(pl.col("src") == source)
        low, high = own.select(pl.col("score").min(), high=pl.col("score").max()).row(0)
        drawn = figure(
            list(_lines(own, ladder[1:], looks)),
            x_title,
            target,
            xaxis=powers(own["x"]) if has_rate else {"type": "linear"},
        )
        name = f"{source}: {target} against {x_title}"
        charts.append((source, f"{target} {low:.4g}..{high:.4g}", Chart(name, drawn, height=300)))
    yield Grid(tuple(charts))
    why = "" if has_rate else " The corpus has no bitrate, so they stand over cq."
    few = f" {len(shown)} of {len(sources)} sources." if len(shown) < len(sources) else ""
    yield Note(
        f"Measured {target} of each encode, mean over its rows; the sources whose scores differ "
        f"least come first.{why}{few}"
    )


def _lines(
    points: pl.DataFrame, ladder: list[str], looks: Mapping[str, Mapping[str, str]]
) -> Iterator[go.Scatter]:
    """Yield a line for each way of coding; the legend names an encoder once, and hides it whole."""
    for encoder in encoders_in(points):
        own = points.filter(pl.col("encoder") == encoder)
        for place, part in enumerate(own.partition_by(ladder, maintain_order=True)):
            way = " ".join(str(v) for v in part.select(ladder).row(0) if v is not None)
            yield go.Scatter(
                x=[rounded(value) for value in part["x"]],
                y=[rounded(value) for value in part["score"]],
                customdata=part["cq"].to_list(),
                mode="lines+markers",
                line={"width": 1, "color": looks[encoder]["color"]},
                marker={**looks[encoder], "size": 6},
                name=escaped(shortened(encoder)),
                legendgroup=escaped(encoder),
                showlegend=place == 0,
                meta=escaped(way),
                hovertemplate="%{meta} cq %{customdata}<br>%{x:.4g}: %{y:.4g}<extra></extra>",
            )


def _is_known(rates: pl.Series) -> bool:
    """Tell whether every row has a bitrate that an axis in powers of ten can show."""
    if not rates.dtype.is_numeric() or rates.null_count():
        return False
    return bool((rates.is_finite() & (rates > 0)).all())
