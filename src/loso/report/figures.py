"""What all charts share: colours, axes, names that data cannot break, and fewer points.

Colours of ink, grid and paper are left to the page, which knows whether it is dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any, Final

import polars as pl
from plotly import graph_objects as go

from loso.schema import ENCODER_VOCAB

__all__ = [
    "MOST_SOURCES",
    "SPLIT",
    "bars",
    "encoders_in",
    "escaped",
    "figure",
    "markers",
    "named",
    "padded",
    "powers",
    "rounded",
    "row_names",
    "shortened",
    "thinned",
]

_HUES: Final = (
    *("#3f83d6", "#d9662b", "#2f9f6b", "#b45fc6", "#c69a1e", "#4fb3d9"),
    *("#d98f7a", "#86b34a", "#8c8fe0", "#a9745b", "#5c9a8b", "#8a8a8a"),
)
_SYMBOLS: Final = (
    *("circle", "square", "diamond", "triangle-up", "cross", "x"),
    *("triangle-down", "pentagon", "star", "hexagon", "bowtie", "hourglass"),
)
MOST_SOURCES: Final = 60
"""Rows of a chart that has one for each source: the first of them, where there are more."""

SPLIT: Final = ("#3f83d6", "#d9662b", "#8a8a8a")
"""Hues for what is judged, what stands beside it, and the rest."""

_KEPT_EXTREMES: Final = 0.1
_LONGEST_NAME: Final = 34
_ROOM: Final = 0.04
_MOST_DECADES: Final = 4
_DIGITS: Final = 5


def figure(
    traces: Sequence[Any], x_title: str, y_title: str, *, legend: bool = True, **layout: Any
) -> go.Figure:
    """Return a figure of `traces` with the margins and axes that all charts share."""
    shared: dict[str, Any] = {
        "template": "none",
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "hovermode": "closest",
        "showlegend": legend,
        "legend": {
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.0,
            "x": 0.0,
            "itemsizing": "constant",  # a key as small as the points of a scatter cannot be told
        },
        "xaxis": {"title": {"text": escaped(x_title)}, "automargin": True},
        "yaxis": {"title": {"text": escaped(y_title)}, "automargin": True},
    }
    drawn = go.Figure(data=list(traces), layout=shared)
    drawn.update_layout(**layout)
    return drawn


def bars(low: Sequence[Any], middle: Sequence[Any], high: Sequence[Any]) -> dict[str, Any]:
    """Return error bars that reach from `low` to `high` around `middle`; None where one is None."""
    ends = list(zip(low, middle, high, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [None if h is None else rounded(h - m) for _, m, h in ends],
        "arrayminus": [None if lo is None else rounded(m - lo) for lo, m, _ in ends],
        "thickness": 1.2,
    }


def escaped(text: object) -> str:
    """Return data as text inside a chart, which else takes tags for markup.

    >>> escaped("<b>x</b>")
    '&lt;b&gt;x&lt;/b&gt;'
    """
    return html.escape("".join(c if c.isprintable() else " " for c in str(text)), quote=False)


def shortened(text: str) -> str:
    """Return a name that fits an axis: long ones lose their middle.

    >>> shortened("a" * 20 + "b" * 20)
    'aaaaaaaaaaaaaaaa…bbbbbbbbbbbbbbbbb'
    """
    if len(text) <= _LONGEST_NAME:
        return text
    head = (_LONGEST_NAME - 1) // 2
    return f"{text[:head]}…{text[head + 1 - _LONGEST_NAME :]}"


def named(names: Sequence[str]) -> dict[str, Any]:
    """Return the ticks of an axis that counts in `names`: equal short names stay apart there."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [escaped(shortened(name)) for name in names],
    }


def padded(low: float, high: float) -> list[float]:
    """Return the range of an axis that shows both ends with a little room around them."""
    room = _ROOM * (high - low or 1.0)
    return [low - room, high + room]


def powers(values: Iterable[float]) -> dict[str, Any]:
    """Return an axis in powers of ten with ticks at 1, 2 and 5 of each that `values` reach.

    >>> powers([90.0, 600.0])["tickvals"]
    [50.0, 100.0, 200.0, 500.0, 1000.0]
    """
    known = [value for value in values if value > 0] or [1.0]
    low, high = (math.log10(end) for end in (min(known), max(known)))
    powers_of_ten = range(math.floor(low), math.ceil(high) + 1)
    ticks: list[float] = [10.0**power for power in powers_of_ten]
    if len(ticks) <= _MOST_DECADES:
        ticks = [step * tick for tick in ticks for step in (1, 2, 5)]
        below = [tick for tick in ticks if tick <= min(known)][-1:]
        above = [tick for tick in ticks if tick >= max(known)][:1]
        ticks = sorted({*below, *above, *(t for t in ticks if min(known) < t < max(known))})
    texts = [f"{tick:g}" for tick in ticks]
    return {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": texts}


def rounded(value: float | None) -> float | None:
    """Return `value` with as many digits as a screen can show; the page stays small.

    >>> rounded(0.123456789)
    0.12346
    """
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def encoders_in(rows: pl.DataFrame) -> tuple[str, ...]:
    """Return the encoders of `rows`, those of the vocabulary first and in its order."""
    found = set(rows["encoder"])
    known = [name for name in ENCODER_VOCAB if name in found]
    return (*known, *sorted(found - set(known)))


def markers(encoders: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return for each encoder a hue that stands out on white and on black, and a shape.

    One of the vocabulary has its own in every report; others take what is left over, in turn.
    """
    looks = [{"color": hue, "symbol": sign} for hue, sign in zip(_HUES, _SYMBOLS, strict=True)]
    own = dict(zip(ENCODER_VOCAB, looks, strict=True))
    free = cycle([own[name] for name in ENCODER_VOCAB if name not in encoders] or looks)
    return {name: own.get(name) or next(free) for name in encoders}


def row_names(rows: pl.DataFrame) -> list[str]:
    """Return what finds a row beside its source and encoder: preset, cq, frame or clip."""
    frames = "frame_index" in rows.columns and rows["frame_index"].null_count() < rows.height
    parts = [
        pl.col("preset").cast(pl.String).fill_null(""),
        pl.format("cq {}", pl.col("cq").round_sig_figs(6).cast(pl.String).str.strip_suffix(".0")),
    ]
    if frames:
        parts.append(pl.format("frame {}", pl.col("frame_index")))
    elif "clip" in rows.columns:
        parts.append(pl.col("clip").cast(pl.String).fill_null(""))
    texts = rows.select(pl.concat_str(parts, separator=" ").str.strip_chars())
    return [escaped(text) for text in texts.to_series()]


def thinned(rows: pl.DataFrame, most: int) -> tuple[pl.DataFrame, str]:
    """Return at most `most` rows, and a sentence that says how many of them were left out.

    The largest errors stay, whatever their number in `rows`; of the others every so manieth stays,
    in their order, so that each encoder and quality keeps its share. Nothing is drawn by chance.
    """
    if rows.height <= most:
        return rows, ""
    extremes = max(1, int(_KEPT_EXTREMES * most))
    place = pl.int_range(pl.len())
    rank = pl.col("error").abs().rank("ordinal", descending=True)
    marked = rows.with_columns(extreme=rank <= extremes)
    others = marked.filter(~pl.col("extreme"))
    step = -(-others.height // (most - extremes)) if most > extremes else others.height + 1
    kept = pl.concat([marked.filter("extreme"), others.filter(place % step == 0)])
    sentence = (
        f"{kept.height:,} of {rows.height:,} points are drawn: the {extremes} largest errors, and "
        f"every {_ordinal(step)} of the others."
    )
    return kept.drop("extreme").sort("row"), sentence


def _ordinal(number: int) -> str:
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if 10 <= number % 100 <= 20 else last}"
