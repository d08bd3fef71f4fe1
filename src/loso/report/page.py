"""Sections become one HTML file that needs nothing else, and asks nobody for anything.

A policy inside the file lets the browser run the scripts that are named by their hashes, and load
nothing: text from a corpus that slipped through as markup could not do anything either.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files

import jinja2
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from loso.report.parts import Chart, Code, Grid, Note, Part, Section, Table, Tiles

__all__ = ["render"]

_TEMPLATES = files("loso.report") / "templates"


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the page; the same sections give the same text."""
    charts = list(_charts(sections))
    places = {id(chart): f"chart-{number}" for number, chart in enumerate(charts)}
    scripts = (get_plotlyjs(), _read("report.js"))
    template = _environment().from_string(_read("report.html"))
    return template.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        style=_read("report.css"),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
        figures={place: _json(chart.figure) for chart in charts for place in [places[id(chart)]]},
        place_of=lambda chart: places[id(chart)],
        kind_of=_kind_of,
    )


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _kind_of(part: Part) -> str:
    kinds = {Note: "note", Tiles: "tiles", Table: "table", Chart: "chart", Grid: "grid"}
    return {**kinds, Code: "code"}[type(part)]


def _charts(sections: Sequence[Section]) -> Iterator[Chart]:
    for section in sections:
        for part in section.parts:
            if isinstance(part, Chart):
                yield part
            elif isinstance(part, Grid):
                yield from (chart for _, _, chart in part.charts)


def _json(figure: Figure) -> str:
    """Return a figure as JSON that cannot end the script element that it stands in."""
    text = json.dumps(figure.to_plotly_json(), separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
