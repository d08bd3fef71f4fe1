"""The verdict in one sentence with its numbers, and every held-out source under every seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import polars as pl
from plotly import graph_objects as go

from loso.gate import limits, margin_text
from loso.recipe import GateThresholds
from loso.report.figures import (
    MOST_SOURCES,
    SPLIT,
    encoders_in,
    escaped,
    figure,
    markers,
    named,
    padded,
    rounded,
    row_names,
    shortened,
    thinned,
)
from loso.report.parts import Chart, Grid, Note, Part, Section, Table, Tile, Tiles
from loso.report.reading import RunRecords
from loso.report.scores import SourceScores, by_source
from loso.run_records import ShownVerdict
from loso.seedfile import DRY_RUN

__all__ = ["sources_section", "verdict_section", "worst_first"]

_MOST_SCATTERS: Final = 24
_MOST_POINTS: Final = 6000
"""Of all scatters together: about 40 bytes each in the file."""


def verdict_section(records: RunRecords) -> Section:
    """Return the verdict with its three numbers, what drags, and what the folder lacks."""
    return Section("verdict", "Verdict", (*_verdict(records), *_remarks(records)))


def _verdict(records: RunRecords) -> Iterator[Part]:
    verdict = records.verdict
    if any(file.note == DRY_RUN for file in records.seed_files):
        yield Note("A dry run of one epoch: it proves nothing, and no gate accepts it.", "bad")
    if verdict is None:
        yield Note(f"Not judged yet. Judge it: {records.command('validate')}", "warn")
        return
    yield _sentence(verdict, records)
    yield Tiles(tuple(_tiles(verdict)))
    for failure in verdict.diagnosis.failed:
        yield Note(f"Failed: {failure}", "bad")
    for advice in verdict.diagnosis.try_first:
        yield Note(f"Try: {advice}", "warn")
    if verdict.gate.advisory:
        yield Table(
            ("beside the gate, without a say in it", "value", "what it is"),
            tuple(
                (advice.check.replace("_", " "), f"{advice.value:.4g}", advice.note)
                for advice in verdict.gate.advisory
            ),
            numbers=("value",),
        )


def _sentence(verdict: ShownVerdict, records: RunRecords) -> Note:
    gate, recipe = verdict.gate, records.recipe
    what = (
        f"{len(verdict.seeds)} seeds, each judged on {len(records.sources)} sources that it had "
        f"not seen, predict {recipe.target} of a {recipe.unit} at a mean PLCC of "
        f"{gate.mean_plcc:.4f}"
    )
    if verdict.verdict == "PROMOTE":
        return Note(f"PROMOTE: {what}; every limit holds.", "good")
    return Note(f"HOLD: {what}; not every limit holds.", "bad")


def _tiles(verdict: ShownVerdict) -> Iterator[Tile]:
    for limit in limits(verdict.gate.model_dump()):
        yield Tile(
            limit.name,
            f"{limit.value:.4f}",
            f"{limit.sign} {limit.limit:g}",
            f"margin {margin_text(limit.margin)}",
            "good" if limit.passed else "bad",
        )
    gain = verdict.gate.gain_over_vmaf
    if gain is not None:
        low = "none" if gain.bootstrap.low is None else f"{gain.bootstrap.low:.4g}"
        yield Tile(
            "RMSE gain over VMAF",
            f"{gain.rmse_gain:.4g}",
            "its interval above 0",
            f"lower end {low}",
            "good" if gain.beats else "bad",
        )


def _remarks(records: RunRecords) -> Iterator[Part]:
    for remark in records.remarks:
        yield Note(remark, "warn")
    if records.intervals is None:
        yield Note(f"No intervals: {records.command('calibrate')}", "warn")


def worst_first(scores: Mapping[str, SourceScores]) -> dict[str, SourceScores]:
    """Return held-out sources by their mean PLCC over seeds, undefined ones before all."""
    below_all = -2.0

    def place(item: tuple[str, SourceScores]) -> float:
        mean = item[1].mean("plcc")
        return below_all if mean is None else mean

    return dict(sorted(scores.items(), key=place))


def sources_section(records: RunRecords) -> Section:
    """Return how each held-out source does under each seed, the worst first."""
    worst = worst_first(by_source(records))
    return Section(
        "sources",
        "Sources and seeds",
        (
            _heat_map(records, worst),
            _table(records, worst),
            *_scatters(records, worst),
        ),
    )


def _heat_map(records: RunRecords, worst: Mapping[str, SourceScores]) -> Chart:
    shown = list(worst)[:MOST_SOURCES]
    scores = [worst[source].of_seeds("plcc") for source in shown]
    texts = [["undef." if s is None else f"{s:.4f}" for s in row] for row in scores]
    seeds = [f"seed {file.seed}" for file in records.seed_files]
    limit = records.verdict.gate.per_seed_min if records.verdict else GateThresholds().per_seed_min
    least = min([limit, *(score for row in scores for score in row if score is not None)])
    trace = go.Heatmap(
        x=seeds,
        y=list(range(len(shown))),
        z=[[rounded(score) for score in row] for row in scores],
        text=texts,
        texttemplate="%{text}",
        customdata=[[escaped(source)] * len(seeds) for source in shown],
        hovertemplate="%{customdata}<br>%{x}: PLCC %{text}<extra></extra>",
        colorscale="Cividis",
        showscale=False,
        zmin=least,
        zmax=1,
        xgap=1,
        ygap=1,
    )
    left_out = f" The worst {len(shown)} of {len(worst)} sources." * (len(shown) < len(worst))
    return Chart(
        "PLCC of every held-out source under every seed",
        figure(
            [trace],
            "",
            "",
            legend=False,
            yaxis={**named(shown), "autorange": "reversed", "automargin": True},
        ),
        f"Worst source on top. Colours run from {least:.4g} to 1, and every seed's mean must reach "
        f"{limit:g}: a dark row is content that is hard for every seed, a dark cell a seed that "
        f"missed it by misfortune.{left_out}",
        height=90 + 26 * len(shown),
    )


def _table(records: RunRecords, worst: Mapping[str, SourceScores]) -> Table:
    rows: list[tuple[str, ...]] = []
    for source, scores in worst.items():
        plccs = [score for score in scores.of_seeds("plcc") if score is not None]
        count = scores.folds[0].n_val or 0
        ends = f"{min(plccs):.4f}..{max(plccs):.4f}" if plccs else ""
        plcc, srocc, rmse = _means(scores)
        rows.append((source, f"{count:,}", plcc, ends, srocc, rmse, scores.reason))
    columns: tuple[str, ...] = ("held-out source", "rows", "PLCC", "over seeds", "SROCC", "RMSE")
    if any(row[-1] for row in rows):
        columns = (*columns, "undefined since")
    else:
        rows = [row[:-1] for row in rows]
    return Table(
        columns,
        tuple(rows),
        numbers=("rows", "PLCC", "over seeds", "SROCC", "RMSE"),
        caption=f"Means over seeds, worst first. RMSE is in units of {records.recipe.target}.",
    )


def _scatters(records: RunRecords, worst: Mapping[str, SourceScores]) -> Iterator[Part]:
    shown = list(worst)[:_MOST_SCATTERS]
    rows = records.rows.filter(pl.col("src").is_in(shown))
    ends = rows.select(
        low=pl.min_horizontal(pl.col("y_true", "y_pred").min()),
        high=pl.max_horizontal(pl.col("y_true", "y_pred").max()),
    ).row(0)
    largest = rows["src"].value_counts(sort=True)["src"][0]
    charts, thin = [], ""
    for source in shown:
        own, left_out = thinned(rows.filter(pl.col("src") == source), _MOST_POINTS // len(shown))
        if source == largest and left_out:
            thin = f" In the largest, {left_out}"
        figures = "PLCC {}, SROCC {}, RMSE {}".format(*_means(worst[source]))
        charts.append((source, figures, _scatter(records, source, own, ends)))
    few = f" The worst {len(shown)} of {len(worst)} sources." if len(shown) < len(worst) else ""
    yield Grid(tuple(charts))
    yield Note(
        f"Each point is a row, its prediction the mean of {len(records.seed_files)} seeds that "
        f"had not seen its source; on the line both agree.{records.unmapped}{few}{thin}"
    )


def _means(scores: SourceScores) -> list[str]:
    """Return the means over seeds of PLCC, SROCC and RMSE, as texts."""
    means = [scores.mean(key) for key in ("plcc", "srocc", "rmse")]
    return ["undefined" if mean is None else f"{mean:.4g}" for mean in means]


def _scatter(
    records: RunRecords, source: str, rows: pl.DataFrame, ends: tuple[float, float]
) -> Chart:
    target = records.recipe.target
    traces = [
        go.Scatter(
            x=list(ends),
            y=list(ends),
            mode="lines",
            line={"width": 1, "dash": "dot", "color": SPLIT[2]},
            hoverinfo="skip",
            showlegend=False,
        )
    ]
    looks = markers(encoders_in(records.rows))
    for encoder in encoders_in(rows):
        own = rows.filter(pl.col("encoder") == encoder)
        traces.append(
            go.Scatter(
                x=[rounded(value) for value in own["y_true"]],
                y=[rounded(value) for value in own["y_pred"]],
                mode="markers",
                marker={**looks[encoder], "size": 5, "opacity": 0.75},
                name=escaped(shortened(encoder)),
                meta=[escaped(source), escaped(encoder)],
                text=row_names(own),
                hovertemplate=(
                    "%{meta[0]}<br>%{meta[1]} %{text}"
                    "<br>measured %{x:.4g}, predicted %{y:.4g}<extra></extra>"
                ),
            )
        )
    return Chart(
        f"{source}: predicted against measured {target}",
        figure(
            traces,
            f"measured {target}",
            f"predicted {target}",
            xaxis_range=padded(*ends),
            yaxis_range=padded(*ends),
        ),
        height=300,
    )
