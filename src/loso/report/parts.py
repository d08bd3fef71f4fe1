"""What a page of the report is made of, as data: a section function fills it, `page` renders it.

Texts are plain: whatever comes from a corpus goes in as it is, and the page escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Chart", "Code", "Grid", "Note", "Part", "Section", "Table", "Tile", "Tiles"]

Tone = Literal["plain", "good", "bad", "warn"]


@dataclass(frozen=True)
class Note:
    """A paragraph; `warn` and `bad` stand out."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Tile:
    """One number with its name, and what it is held against: `limit` and `margin` in words."""

    name: str
    value: str
    limit: str = ""
    margin: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Tiles:
    """Numbers side by side."""

    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Table:
    """Rows of texts under their columns; columns named in `numbers` are set to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure; `caption` says what to look for, and where points were left out, how many."""

    name: str
    figure: Figure
    caption: str = ""
    height: int = 360


@dataclass(frozen=True)
class Grid:
    """Small charts beside each other, each under its title and a line of figures."""

    charts: tuple[tuple[str, str, Chart], ...]


@dataclass(frozen=True)
class Code:
    """Text to be copied as it stands: a command, a hash."""

    name: str
    text: str


Part = Note | Tiles | Table | Chart | Grid | Code


@dataclass(frozen=True)
class Section:
    """One part of the page: an anchor, a heading, and what stands under it."""

    anchor: str
    title: str
    parts: tuple[Part, ...]
