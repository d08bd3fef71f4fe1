"""What the model is worth: beside a column that was there already, a ridge, and fewer inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from plotly import graph_objects as go

from loso.baselines import MODEL, BaselinesFile, Ends, Figures, Gain
from loso.report.figures import SPLIT, bars, escaped, figure, named, rounded
from loso.report.parts import Chart, Note, Part, Section, Table
from loso.report.reading import RunRecords

__all__ = ["section"]

_INTERVALS: Final = (
    ("bootstrap", SPLIT[0], "circle"),
    ("jackknife", SPLIT[1], "square"),
)


def section(records: RunRecords) -> Section:
    """Return baselines and ablations with the intervals of their differences to the model."""
    return Section("baselines", "Baselines and ablations", tuple(_parts(records)))


def _parts(records: RunRecords) -> Iterator[Part]:
    baselines = records.baselines
    if baselines is None:
        yield Note(f"Not computed: {records.command('ablate')}", "warn")
        return
    mapped = "" if baselines.mapping == "none" else f" Scores are mapped: {baselines.mapping}."
    yield Note(
        f"Figures over all out-of-fold rows pooled, so a PLCC here is not the mean over sources "
        f"of the verdict. A gain is a baseline's RMSE less the model's, paired over sources."
        f"{mapped}"
    )
    for unit, gains in baselines.gains.items():
        if gains:
            yield _forest(unit, gains, baselines.target)
        yield _table(unit, baselines.figures[unit], gains)
    if baselines.not_computed:
        reasons = (f"{_words(name)} ({why})" for name, why in baselines.not_computed.items())
        yield Note(f"Not computed: {'; '.join(reasons)}.")
    yield from _panels(baselines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _forest(unit: str, gains: Mapping[str, Gain], target: str) -> Chart:
    names = list(gains)
    traces = []
    for shift, (kind, colour, symbol) in zip((-0.08, 0.08), _INTERVALS, strict=True):
        ends: list[Ends] = [getattr(gains[name], kind) for name in names]
        middle = [gains[name].rmse_gain for name in names]
        traces.append(
            go.Scatter(
                x=[rounded(value) for value in middle],
                y=[place + shift for place in range(len(names))],
                error_x=bars([e.low for e in ends], middle, [e.high for e in ends]),
                customdata=[
                    [escaped(_words(name)), *_texts(own)]
                    for name, own in zip(names, ends, strict=True)
                ],
                mode="markers",
                name=f"{kind} over sources",
                marker={"size": 9, "color": colour, "symbol": symbol},
                hovertemplate=(
                    "%{customdata[0]}<br>gain %{x:.4g}, %{customdata[1]}..%{customdata[2]}"
                    "<extra>%{fullData.name}</extra>"
                ),
            )
        )
    drawn = figure(
        traces,
        f"RMSE gain of the model in {target}",
        "",
        yaxis={
            **named([_words(name) for name in names]),
            "range": [len(names) - 0.5, -0.5],
            "automargin": True,
        },
    )
    drawn.add_vline(x=0, line={"width": 1, "dash": "dot", "color": SPLIT[2]})
    level = next(iter(gains.values())).level
    return Chart(
        f"What the model gains, {unit}s",
        drawn,
        f"Bars are {level:.0%} intervals with sources as the unit. Right of the dotted line the "
        "model is closer to the target.",
        height=130 + 44 * len(names),
    )


def _texts(ends: Ends) -> tuple[str, str]:
    low, high = (("none" if end is None else f"{end:.4g}") for end in (ends.low, ends.high))
    return low, high


def _table(unit: str, figures: Mapping[str, Figures], gains: Mapping[str, Gain]) -> Table:
    rows = []
    for name in sorted(figures, key=lambda name: (name != MODEL, figures[name].rmse)):
        of, gain = figures[name], gains.get(name)
        rows.append(
            (
                _words(name),
                *(_number(value) for value in (of.plcc, of.srocc, of.krocc, of.rmse)),
                *(("", "", "", "") if gain is None else _gain(gain)),
            )
        )
    columns = ("predictor", "PLCC", "SROCC", "KROCC", "RMSE")
    more = ("RMSE gain", "bootstrap", "jackknife-t", "beaten")
    return Table(
        (*columns, *more),
        tuple(rows),
        numbers=(*columns[1:], *more[:3]),
        caption=f"{unit}s, {next(iter(figures.values())).n_rows:,} of them",
    )


def _gain(gain: Gain) -> tuple[str, str, str, str]:
    answer = "yes" if gain.beats else "no"
    if not gain.jackknife_agrees:
        answer += ", but not by the jackknife" if gain.beats else ", but by the jackknife"
    drawn, left_out = ("..".join(_texts(ends)) for ends in (gain.bootstrap, gain.jackknife))
    return f"{gain.rmse_gain:+.4g}", drawn, left_out, answer


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _panels(baselines: BaselinesFile) -> Iterator[Note]:
    for pair in baselines.panels:
        ceiling = "" if pair.plcc_ceiling is None else f"PLCC {pair.plcc_ceiling:.4f} and "
        yield Note(
            f"Panels {' and '.join(pair.panels)} rated {pair.n_clips} clips both and agree at PLCC "
            f"{_number(pair.plcc)}, RMSE {pair.rmse:.4f}: with equal, independent noise no model "
            f"of one panel passes {ceiling}RMSE {pair.rmse_floor:.4f}."
        )
