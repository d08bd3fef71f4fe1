"""How training went: the loss of every member, and what trained them for how long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl
from plotly import graph_objects as go

from loso.report.figures import escaped, figure, powers, rounded, shortened
from loso.report.parts import Chart, Note, Part, Section, Table
from loso.report.reading import RunRecords

__all__ = ["section"]

_MOST_LINES: Final = 60
_MOST_EPOCHS: Final = 120
"""Of a line: a loss over more epochs is drawn at so many of them."""

_SETTLED: Final = 0.05
"""A fall of the mean loss, from one tenth of the epochs to the next, that no longer counts."""

_HUES: Final = ("#3f83d6", "#d9662b", "#2f9f6b", "#b45fc6", "#c69a1e", "#4fb3d9", "#a9745b")


def section(records: RunRecords) -> Section:
    """Return the losses of a run's members, and the calls that trained them."""
    return Section("training", "Training", tuple(_parts(records)))


def _parts(records: RunRecords) -> Iterator[Part]:
    yield _how(records)
    if not records.losses.height:
        yield Note("No losses are recorded.", "warn")
        return
    yield _chart(records)
    yield _still_falling(records.losses)


def _how(records: RunRecords) -> Part:
    rows = [
        (
            call.started,
            ", ".join(map(str, call.trained_seeds)),
            ", ".join(map(str, call.kept_seeds)),
            str(records.first.engine),
            "as suits it" if call.threads is None else str(call.threads),
            "" if call.wall_time_s is None else f"{call.wall_time_s:.1f}",
        )
        for call in records.calls
    ]
    columns = ("started (UTC)", "seeds trained", "seeds kept", "engine", "threads", "seconds")
    return Table(columns, tuple(rows), numbers=("seconds",), caption="Calls of loso train or run.")


def _chart(records: RunRecords) -> Chart:
    """Return one line a member, or each seed's range where members are many."""
    losses = records.losses
    epochs = losses["epoch"].n_unique()
    every = -(-epochs // _MOST_EPOCHS)
    drawn = losses.filter((pl.col("epoch") % every == 0) | (pl.col("epoch") == epochs - 1))
    members = losses.select("seed", "fold").unique().height
    if members <= _MOST_LINES:
        traces = list(_lines(drawn))
        caption = f"Each line is a member: {members} of them, one colour a seed."
    else:
        traces = list(_ranges(drawn))
        caption = (
            f"{members:,} members are too many to draw one by one: each seed's median, and the "
            "range of its members."
        )
    thin = f" Every {every} epochs." if every > 1 else ""
    dropout = (
        " Dropout is on, so the loss lies above the error of predictions."
        if records.recipe.dropout
        else ""
    )
    return Chart(
        "Training loss",
        figure(
            traces,
            "epoch",
            f"mean squared error in {records.recipe.target}",
            yaxis=powers(drawn["loss"]),
        ),
        f"{caption}{thin}{dropout}",
    )


def _lines(losses: pl.DataFrame) -> Iterator[go.Scatter]:
    for number, ((seed,), of_seed) in enumerate(losses.group_by("seed", maintain_order=True)):
        for first, own in enumerate(of_seed.partition_by("fold", maintain_order=True)):
            yield go.Scatter(
                x=(own["epoch"] + 1).to_list(),
                y=[_loss(value) for value in own["loss"]],
                mode="lines",
                opacity=0.6,
                line={"width": 1, "color": _HUES[number % len(_HUES)]},
                name=f"seed {seed}",
                legendgroup=f"{seed}",
                showlegend=first == 0,
                meta=escaped(shortened(own["held_out"][0])),
                hovertemplate=(
                    f"seed {seed}, without %{{meta}}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>"
                ),
            )


def _ranges(losses: pl.DataFrame) -> Iterator[go.Scatter]:
    for number, ((seed,), of_seed) in enumerate(losses.group_by("seed", maintain_order=True)):
        loss = pl.col("loss")
        own = of_seed.group_by("epoch").agg(low=loss.min(), middle=loss.median(), high=loss.max())
        own = own.sort("epoch")
        for name, dash in (("low", "dot"), ("middle", "solid"), ("high", "dot")):
            yield go.Scatter(
                x=(own["epoch"] + 1).to_list(),
                y=[_loss(value) for value in own[name]],
                mode="lines",
                line={"width": 1, "dash": dash, "color": _HUES[number % len(_HUES)]},
                name=f"seed {seed}",
                legendgroup=f"{seed}",
                showlegend=name == "middle",
                hovertemplate=f"seed {seed}, {name}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>",
            )


def _loss(value: float) -> float | None:
    """Return a loss for an axis in powers of ten, which has no place for 0."""
    return rounded(value) if value > 0 else None


def _still_falling(losses: pl.DataFrame) -> Note:
    """Say by how much the last tenth of the epochs lies below the tenth before it."""
    epochs = losses["epoch"].n_unique()
    tenth = max(1, epochs // 10)
    at = pl.col("epoch")
    last = losses.filter(at >= epochs - tenth)["loss"].mean()
    before = losses.filter((at >= epochs - 2 * tenth) & (at < epochs - tenth))["loss"].mean()
    if not isinstance(last, float) or not isinstance(before, float) or not before:
        return Note("Too few epochs to tell whether the loss still falls.")
    change = last / before - 1
    how = "more epochs may still help" if change < -_SETTLED else "it has settled"
    return Note(
        f"Over the last {tenth} epochs the mean loss is {last:.4g}, {change:+.1%} against the "
        f"{tenth} before: {how}."
    )
