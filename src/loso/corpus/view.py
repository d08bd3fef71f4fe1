"""The rows of a corpus that a recipe trains on: without excluded sources, grouped, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from loso.corpus.load import Corpus
from loso.corpus.units import as_clips
from loso.errors import BadCorpus
from loso.recipe import Recipe
from loso.spelling import did_you_mean

__all__ = ["FILE_SOURCE", "view"]

FILE_SOURCE = "src_in_file"
"""Where a row's own `src` stands once a recipe has grouped rows by another column."""


def view(corpus: Corpus, recipe: Recipe, exclude_sources: Sequence[str] = ()) -> Corpus:
    """Return what `recipe` sees of `corpus`; column `row` counts its rows before any is excluded.

    Where the recipe groups by another column than `src`, that column is the source from here on.
    BadCorpus for a source that is to be excluded and is not there, and for a group without a name.
    """
    spec = recipe.inputs
    if spec.group_by != "src":
        corpus = _grouped(corpus, spec.group_by)
    unknown = sorted(set(exclude_sources) - set(corpus.sources))
    if unknown:
        raise BadCorpus(
            f"cannot exclude {', '.join(unknown)}: no such source",
            where=str(corpus.path),
            expected="one of " + ", ".join(corpus.sources),
            fix=did_you_mean(unknown[0], corpus.sources),
        )
    if recipe.unit == "clip":
        corpus = as_clips(
            corpus,
            spec.features.columns,
            statistics=spec.statistics,
            drop_first_frame=spec.drop_first_frame,
        )
    elif spec.drop_first_frame:
        corpus = replace(corpus, rows=corpus.rows.filter(pl.col("frame_index") > 0))
    rows = corpus.rows.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    return replace(corpus, rows=rows.filter(~pl.col("src").is_in(list(exclude_sources))))


def _grouped(corpus: Corpus, column: str) -> Corpus:
    rows = corpus.rows
    if column not in rows.columns:
        raise BadCorpus(
            f"no column {column} to group by",
            where=str(corpus.path),
            fix=did_you_mean(column, rows.columns) or "add it, or group by src",
        )
    unnamed = rows[column].null_count()
    if unnamed:
        raise BadCorpus(
            f"{column} has no value in {unnamed} of {rows.height} rows",
            where=str(corpus.path),
            fix="name the group of every row",
        )
    named = pl.col(column).cast(pl.String)
    rows = rows.with_columns(named.alias("src"), pl.col("src").alias(FILE_SOURCE))
    return replace(corpus, rows=rows, key=(*corpus.key, FILE_SOURCE))
