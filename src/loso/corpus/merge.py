"""Shards from several machines or sites become one corpus, whatever the order they come in.

Rows that are lines of JSON are copied as they stand, in the order in which a build writes them: the
shards of one build that was split over machines become the very bytes of the whole.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel

from loso.corpus.jsonl import show
from loso.corpus.manifest import manifest_path
from loso.corpus.order import columns_in_order, rows_in_order
from loso.corpus.origins import Origin, agreement, origin_of
from loso.corpus.rows import identity_of
from loso.corpus.shard import Shard, read_shard, refuse_other_columns
from loso.corpus.store import refuse_out, write_corpus, write_lines
from loso.errors import BadCorpus
from loso.files import sha256_of, to_json, write_json
from loso.progress import Progress, silent

__all__ = ["MergeReport", "MergedShard", "merge_corpora"]

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class MergedShard:
    """One of the files that went in."""

    path: str
    rows: int
    shared: int
    """Rows that stand in another shard too."""


@dataclass(frozen=True, kw_only=True)
class MergeReport:
    """What a merge left behind."""

    corpus: Path
    manifest: Path
    rows: int
    sources: tuple[str, ...]
    duplicates: int
    """Rows left out, as an equal one is there already."""
    shards: tuple[MergedShard, ...]
    """By file name."""
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {**asdict(self), "corpus": str(self.corpus), "manifest": str(self.manifest)}


def merge_corpora(
    paths: Sequence[Path],
    *,
    out: Path,
    key: Sequence[str] = (),
    command: Sequence[str] = (),
    progress: Progress = silent,
) -> MergeReport:
    """Write the rows of all shards, each once, as `out` with its manifest, and report.

    Neither bytes nor warnings depend on the order of `paths`. `key` adds columns to what names a
    row. Whatever is refused is refused before anything is written: BadCorpus where shards differ in
    their columns, VMAF models or clips of one source, or disagree on a row. Memory grows with the
    shards, unpacked, and their tables.
    """
    refuse_out(out, dict.fromkeys(paths, "a shard that is merged"))
    origins = _read(paths, key, progress)
    warnings = agreement(origins)
    refuse_other_columns([origin.shard for origin in origins])
    rows = _together([origin.shard for origin in origins], key)
    if out.suffix == ".parquet":
        # Of the two zeros, which are equal, one: else the shards' names would decide.
        number = pl.col(pl.Float64)
        kept = rows.table[rows.firsts].with_columns(
            pl.when(number == 0).then(0.0).otherwise(number).name.keep()
        )
        write_corpus(kept.select(columns_in_order(kept.columns)), out)
    else:
        write_lines(_lines(rows), out)
    report = MergeReport(
        corpus=out,
        manifest=manifest_path(out),
        rows=len(rows.sizes),
        sources=tuple(rows.table["src"].unique().sort()),
        duplicates=len(rows.order) - len(rows.sizes),
        shards=tuple(_merged(rows)),
        warnings=tuple(warnings),
    )
    manifest = {**_manifest(report, origins, _clips(rows)), "command": shlex.join(command)}
    write_json(report.manifest, manifest)
    return report


def _read(paths: Sequence[Path], key: Sequence[str], progress: Progress) -> list[Origin]:
    """Return the shards with what they say of their making, by name."""
    names = Counter(path.name for path in paths)
    origins = []
    for at, path in enumerate(paths, start=1):
        name = path.name if names[path.name] == 1 else str(path)
        origins.append(origin_of(read_shard(path, key=key), name))
        progress(at, len(paths), name)
    return sorted(origins, key=lambda origin: (origin.shard.path.name, origin.shard.hashes))


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of all shards, one shard after the other, and how they belong together."""

    shards: Sequence[Shard]
    table: pl.DataFrame
    order: NDArray[np.int64]
    """Places in `table`, so that rows of one identity are neighbours."""
    sizes: NDArray[np.int64]
    """How many rows there are of each identity, in that order."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where the rows of each identity begin in `order`."""
        return np.cumsum(self.sizes) - self.sizes

    @property
    def firsts(self) -> NDArray[np.int64]:
        """The place of one row of each identity."""
        return self.order[self.starts]

    def shared(self) -> NDArray[np.int64]:
        """Return the places of rows whose identity is there more than once, in order."""
        return self.order[np.repeat(self.sizes > 1, self.sizes)]

    def located(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for places in `table`, the numbers of their shards and the rows in these."""
        ends = np.cumsum([shard.rows.height for shard in self.shards])
        numbers = np.searchsorted(ends, places, side="right")
        return numbers, places - np.insert(ends[:-1], 0, 0)[numbers]


def _together(shards: Sequence[Shard], key: Sequence[str]) -> _Rows:
    """Return the rows of all shards; BadCorpus where two of one identity say different things."""
    table = pl.concat([shard.rows for shard in shards], how="diagonal_relaxed")
    identity = identity_of(table.columns, key)
    # The order of a corpus goes by columns that name no row: it would part two that contradict.
    by_name = table.select(pl.arg_sort_by(*identity, pl.int_range(pl.len()))).to_series()
    rows = _grouped(shards, table, by_name, identity)
    if len(rows.sizes) < table.height:
        _refuse_conflict(rows, identity)
    return _grouped(shards, table, rows_in_order(table, identity), identity)


def _grouped(
    shards: Sequence[Shard], table: pl.DataFrame, places: pl.Series, identity: Sequence[str]
) -> _Rows:
    """Return the rows in the order of `places`, where those of one identity are neighbours."""
    order = places.to_numpy().astype(np.int64)
    starts = np.flatnonzero(~_as_above(table.select(identity)[order]).all(axis=1))
    return _Rows(shards, table, order, np.diff(np.append(starts, len(order))))


def _as_above(table: pl.DataFrame) -> NDArray[np.bool_]:
    """Return, shape (rows, columns), which values are those of the row before.

    Two missing values are equal; what is missing in the first row counts as equal too.
    """
    return table.select(pl.all().eq_missing(pl.all().shift(1))).to_numpy().astype(np.bool_)


def _refuse_conflict(rows: _Rows, identity: Sequence[str]) -> None:
    places = rows.shared()
    others = columns_in_order([name for name in rows.table.columns if name not in identity])
    same = _as_above(rows.table.select(others)[places])
    sizes = rows.sizes[rows.sizes > 1]
    same[np.cumsum(sizes) - sizes] = True  # the first of each identity stands for the others
    clashes = np.flatnonzero(~same.all(axis=1))
    if not len(clashes):
        return
    at = int(clashes[0])
    name = others[int(np.argmin(same[at]))]
    one, other = rows.table[places[at - 1 : at + 1]].iter_rows(named=True)
    numbers, within = rows.located(places[at - 1 : at + 1])
    where = [rows.shards[n].place(row) for n, row in zip(numbers, within.tolist(), strict=True)]
    more = f", and {len(clashes) - 1} rows more" if len(clashes) > 1 else ""
    raise BadCorpus(
        f"{name} of one row is {_said(one[name])} in the first and {_said(other[name])} in the "
        "second",
        where=" and ".join(where),
        found=", ".join(f"{column} {_said(one[column])}" for column in identity) + more,
        fix="drop one of the two, measure again, or name the column that tells them apart (--key)",
    )


def _said(value: Any) -> str:
    return "nothing" if value is None else show(value)


def _lines(rows: _Rows) -> Iterator[bytes]:
    """Yield the line of each identity; of several, which say the same, the first by its bytes."""
    lines = [shard.lines() for shard in rows.shards]
    numbers, within = (places.tolist() for places in rows.located(rows.order))
    for start, size in zip(rows.starts.tolist(), rows.sizes.tolist(), strict=True):
        if size == 1:
            yield lines[numbers[start]][within[start]] + b"\n"
        else:
            yield min(lines[numbers[at]][within[at]] for at in range(start, start + size)) + b"\n"


def _merged(rows: _Rows) -> Iterator[MergedShard]:
    shared = np.bincount(rows.located(rows.shared())[0], minlength=len(rows.shards))
    for shard, count in zip(rows.shards, shared.tolist(), strict=True):
        yield MergedShard(path=str(shard.path), rows=shard.rows.height, shared=count)


def _clips(rows: _Rows) -> dict[str, int]:
    """Return the clips of the corpus, and the place of each among them."""
    if "clip" not in rows.table.columns:
        return {}
    clips = rows.table["clip"][rows.firsts].unique(maintain_order=True)
    return {str(clip): at for at, clip in enumerate(clips)}


def _manifest(
    report: MergeReport, origins: Sequence[Origin], clips: Mapping[str, int]
) -> dict[str, Any]:
    """Return the manifest but for the command; of what several shards say of one thing, one."""
    parts = {(part.file, part.sha256): part for origin in origins for part in origin.parts}
    cells = _one_of_each((cell.clip, cell) for origin in origins for cell in origin.cells)
    missing = sorted(pair for origin in origins for pair in origin.missing.items())
    return {
        "cells": [cells[name] for name in sorted(cells, key=lambda n: clips.get(n, len(clips)))],
        "clips": _one_of_each(pair for origin in origins for pair in origin.clips.items()),
        "corpus": {
            "file": report.corpus.name,
            "rows": report.rows,
            "sha256": sha256_of(report.corpus),
        },
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "duplicates": report.duplicates,
        "loso_version": version("loso"),
        "missing": {name: reason for name, reason in reversed(missing) if name not in cells},
        "schema_version": SCHEMA_VERSION,
        "shards": [part.model_dump() for _, part in sorted(parts.items())],
        "warnings": list(report.warnings),
    }


def _one_of_each(records: Iterable[tuple[str, BaseModel]]) -> dict[str, dict[str, Any]]:
    """Return what is recorded under each name, by name; of several, the first as JSON."""
    told = [(name, record.model_dump(exclude_unset=True)) for name, record in records]
    told.sort(key=lambda pair: (pair[0], to_json(pair[1])), reverse=True)
    return dict(reversed(dict(told).items()))
