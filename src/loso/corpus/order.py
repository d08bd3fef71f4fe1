"""The order of a corpus's rows and columns: that in which a build writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from loso.schema import CANONICAL_6
from loso.video.encoders import ENCODERS

__all__ = ["columns_in_order", "rows_in_order"]

_COLUMNS: Final = (
    *("src", "encoder", "preset", "cq", "frame_index", "vmaf", *CANONICAL_6),
    *("clip", "rate_control", "quality_setting", "enc_bytes", "bitrate_kbps"),
    *("width", "height", "fps"),
)
_REVERSED: Final = [name for name, encoder in ENCODERS.items() if encoder.reversed_quality]


def columns_in_order(columns: Sequence[str]) -> list[str]:
    """Return the columns of a build in its order, then the others by name.

    >>> columns_in_order(["mos", "clip", "content", "encoder", "src"])
    ['src', 'encoder', 'clip', 'content', 'mos']
    """
    return [
        *(name for name in _COLUMNS if name in columns),
        *sorted(name for name in columns if name not in _COLUMNS),
    ]


def rows_in_order(rows: pl.DataFrame, identity: Sequence[str]) -> pl.Series:
    """Return the places of valid `rows`, in order; equal ones are neighbours.

    The order is that of source, encoder, preset (fastest first), height, quality before bitrate
    (both as the encoder counts them, ascending), then whatever else names a row, frames last. Not
    all of that is in `identity`: rows of one that contradict each other may lie apart.
    """
    preset = pl.col("preset").cast(pl.String) if "preset" in rows.columns else pl.lit("")
    named = rows.select("encoder", preset=preset.fill_null(""))
    ways = sorted(named.unique().iter_rows(), key=_rank)
    ranks = pl.DataFrame(ways, schema=named.schema, orient="row").with_row_index("rank")
    way = named.join(ranks, on=named.columns, how="left", maintain_order="left")["rank"]
    is_bitrate = pl.col("cq") < 0
    if rows.schema.get("rate_control") == pl.String:
        is_bitrate = (pl.col("rate_control") == "bitrate").fill_null(is_bitrate)
    turned = is_bitrate | pl.col("encoder").is_in(_REVERSED)
    height = [pl.col("height")] if "height" in rows.columns else []
    rest = [name for name in identity if name not in {"src", "encoder", "frame_index"}]
    return rows.select(
        pl.arg_sort_by(
            "src",
            way,
            *height,
            is_bitrate,
            pl.when(turned).then(-pl.col("cq")).otherwise("cq"),
            *rest,
            "frame_index",
        )
    ).to_series()


def _rank(way: tuple[str, str]) -> tuple[int, str, int, str]:
    name, preset = way
    encoder = ENCODERS.get(name)
    if encoder is None:
        return len(ENCODERS), name, 0, preset
    known = encoder.presets
    place = known.index(preset) if preset in known else len(known)
    return list(ENCODERS).index(name), name, place, preset
