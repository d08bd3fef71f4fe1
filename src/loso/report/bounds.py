"""Do the intervals hold: nominal against measured coverage, source by source, and their width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from plotly import graph_objects as go

from loso.intervals import IntervalsFile, LevelCoverage, level_key
from loso.report.figures import MOST_SOURCES, SPLIT, escaped, figure, named, rounded
from loso.report.parts import Chart, Note, Part, Section, Table
from loso.report.reading import RunRecords

__all__ = ["section", "shown_level"]

_METHODS: Final = {
    "hierarchical": "over sources",
    "gaussian": "mu +- z sigma",
    "permuted_split": "rows permuted",
}


def section(records: RunRecords) -> Section:
    """Return the measured coverage of a run's intervals beside that of simpler ones."""
    return Section("intervals", "Do the intervals hold", tuple(_parts(records)))


def _parts(records: RunRecords) -> Iterator[Part]:
    intervals = records.intervals
    if intervals is None:
        yield Note(f"Not calibrated: {records.command('calibrate')}", "warn")
        return
    coverage = intervals.coverage
    of_rows = coverage.by_pool[intervals.unit]
    level = shown_level(intervals)
    judged = f"{len(coverage.judged_sources)} of {intervals.n_calibration_sources}"
    yield Note(
        f"Intervals of level {level_key(intervals.default_level)} are supported by "
        f"{intervals.n_calibration_sources} sources. Coverage is measured by {coverage.n_pairs} "
        f"refits a seed on {judged} sources: model and calibration had seen neither the judged "
        f"source nor, for each other source, that one."
    )
    for method, reasons in of_rows.left_out.items():
        for key, reason in reasons.items():
            yield Note(f"{_METHODS.get(method, method)} at {key}: {reason}", "warn")
    methods = {
        name: found
        for name, found in (
            ("hierarchical", of_rows.hierarchical),
            ("gaussian", of_rows.gaussian),
            ("permuted_split", of_rows.permuted_split),
        )
        if found
    }
    yield _nominal(methods, intervals.unit)
    yield _by_source(of_rows.hierarchical[level], of_rows.gaussian[level], float(level))
    yield _table(of_rows.hierarchical[level], of_rows.gaussian[level], level, records)
    yield _pools(intervals, level)


def shown_level(intervals: IntervalsFile) -> str:
    """Return the default level, or the highest below it whose coverage could be measured."""
    measured = intervals.coverage.by_pool[intervals.unit].hierarchical
    key = level_key(intervals.default_level)
    return key if key in measured else max(measured, key=float)


def _nominal(methods: Mapping[str, Mapping[str, LevelCoverage]], unit: str) -> Chart:
    traces = [
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            line={"width": 1, "dash": "dot", "color": SPLIT[2]},
            hoverinfo="skip",
            showlegend=False,
        )
    ]
    for (method, found), colour, symbol in zip(
        methods.items(), SPLIT, ("circle", "square", "diamond"), strict=False
    ):
        levels = sorted(found, key=float)
        traces.append(
            go.Scatter(
                x=[float(key) for key in levels],
                y=[rounded(found[key].mean) for key in levels],
                mode="lines+markers",
                name=_METHODS[method],
                marker={"size": 10, "color": colour, "symbol": symbol},
                hovertemplate="nominal %{x}, measured %{y:.3f}<extra>%{fullData.name}</extra>",
            )
        )
        traces.append(
            go.Scatter(
                x=[float(key) for key in levels for _ in found[key].by_source],
                y=[rounded(s.coverage) for key in levels for s in found[key].by_source.values()],
                text=[escaped(name) for key in levels for name in found[key].by_source],
                mode="markers",
                name=f"{_METHODS[method]}, each source",
                marker={"size": 5, "color": colour, "symbol": f"{symbol}-open"},
                hovertemplate="%{text}<br>nominal %{x}, measured %{y:.3f}<extra></extra>",
                visible=True if method == "hierarchical" else "legendonly",
            )
        )
    return Chart(
        f"Nominal against measured coverage of {unit}s",
        figure(traces, "nominal level", "measured coverage", yaxis_range=[0, 1.02]),
        "On the dotted line intervals cover what they say; below it they promise too much.",
    )


def _by_source(over: LevelCoverage, gaussian: LevelCoverage, level: float) -> Chart:
    names = sorted(over.by_source, key=lambda name: over.by_source[name].coverage)
    shown = names[:MOST_SOURCES]
    traces = [
        go.Scatter(
            x=[rounded(found.by_source[name].coverage) for name in shown],
            y=list(range(len(shown))),
            customdata=[[escaped(name), rounded(found.by_source[name].width)] for name in shown],
            mode="markers",
            name=_METHODS[method],
            marker={"size": 10, "color": colour, "symbol": symbol},
            hovertemplate=(
                "%{customdata[0]}<br>covered %{x:.3f}, width %{customdata[1]:.4g}"
                "<extra>%{fullData.name}</extra>"
            ),
        )
        for method, found, colour, symbol in (
            ("hierarchical", over, SPLIT[0], "circle"),
            ("gaussian", gaussian, SPLIT[1], "square"),
        )
    ]
    drawn = figure(
        traces,
        "measured coverage",
        "",
        yaxis={**named(shown), "autorange": "reversed", "automargin": True},
        xaxis_range=[0, 1.02],
    )
    drawn.add_vline(x=level, line={"width": 1, "dash": "dot", "color": SPLIT[2]})
    few = f" The worst {len(shown)} of {len(names)} sources." * (len(shown) < len(names))
    return Chart(
        f"Measured coverage of each source at {level:g}",
        drawn,
        f"Worst source on top; the dotted line is the level.{few}",
        height=110 + 24 * len(shown),
    )


def _table(over: LevelCoverage, gaussian: LevelCoverage, level: str, records: RunRecords) -> Table:
    names = sorted(over.by_source, key=lambda name: over.by_source[name].coverage)
    mean = (
        "mean over sources",
        f"{over.mean:.3f}",
        f"{over.mean_width:.4g}",
        f"{gaussian.mean:.3f}",
        f"{gaussian.mean_width:.4g}",
    )
    return Table(
        ("source", "covered", "width", "mu +- z sigma covers", "its width"),
        (
            mean,
            *(
                (
                    name,
                    f"{over.by_source[name].coverage:.3f}",
                    f"{over.by_source[name].width:.4g}",
                    f"{gaussian.by_source[name].coverage:.3f}",
                    f"{gaussian.by_source[name].width:.4g}",
                )
                for name in names
            ),
        ),
        numbers=("covered", "width", "mu +- z sigma covers", "its width"),
        caption=f"At {level}, widths from end to end in units of {records.recipe.target}.",
    )


def _pools(intervals: IntervalsFile, level: str) -> Table:
    rows = []
    for pool, rule in intervals.by_pool.items():
        measured = intervals.coverage.by_pool[pool]
        over, gaussian = measured.hierarchical.get(level), measured.gaussian.get(level)
        form = "mu +- q" if rule.form == "absolute" else f"mu +- q (sigma + {rule.s0:.3g})"
        quantile = rule.quantiles.get(level)
        rows.append(
            (
                pool,
                form,
                "" if quantile is None else f"{quantile:.4g}",
                *_three(over),
                *_three(gaussian)[:1],
            )
        )
    columns = ("pool", "interval", "q", "covered", "worst source", "width", "mu +- z sigma covers")
    return Table(
        columns,
        tuple(rows),
        numbers=(columns[2], columns[3], columns[4], columns[5], columns[6]),
        caption=f"A {intervals.unit}, and each pooled score of a clip, at {level}.",
    )


def _three(found: LevelCoverage | None) -> tuple[str, str, str]:
    if found is None:
        return "", "", ""
    return f"{found.mean:.3f}", f"{found.worst:.3f}", f"{found.mean_width:.4g}"
