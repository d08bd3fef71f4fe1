"""A corpus meets a table: its rows get more columns, and nothing is left over in silence."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import polars as pl

from loso.corpus.load import load_corpus, with_bits_per_pixel
from loso.corpus.manifest import manifest_path
from loso.corpus.names import known_encoder, listed
from loso.corpus.rows import valid_rows
from loso.corpus.store import refuse_out, write_corpus
from loso.corpus.table import read_table, require_column
from loso.errors import BadInput, BadSettings
from loso.files import sha256_of, write_json

__all__ = ["JoinReport", "JoinSettings", "join_table"]

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class JoinSettings:
    """Which columns name a row of the table, and which of its others go into the corpus."""

    on: tuple[str, ...]
    columns: tuple[str, ...] = ()
    """All beside `on` unless given."""
    key: tuple[str, ...] = ()
    """Columns that tell rows of the corpus apart beside those that always do."""
    known_encoders: bool = False
    """Give encoders ffmpeg's names, in the corpus and in the table."""
    allow_unjoined: bool = False


@dataclass(frozen=True, kw_only=True)
class JoinReport:
    """What a join left behind."""

    corpus: Path
    manifest: Path
    rows: int
    """Rows in the new corpus."""
    columns: tuple[str, ...]
    """Columns that the corpus did not have."""
    joined: int
    """Rows of the table that joined."""
    left_out: int
    """Rows of the corpus that did not, and are not in the new one."""
    corpus_without_table: tuple[str, ...]
    """What names those rows, each once, in the order of the corpus."""
    table_without_corpus: tuple[str, ...]
    """What names the rows of the table that did not join."""
    aliases: Mapping[str, int]
    """Rows of the corpus of each encoder that was renamed, such as `h264 -> libx264`."""
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {**asdict(self), "corpus": str(self.corpus), "manifest": str(self.manifest)}


def join_table(
    corpus_path: Path,
    table_path: Path,
    settings: JoinSettings,
    *,
    out: Path,
    command: Sequence[str] = (),
) -> JoinReport:
    """Write the rows of a corpus, in its order, with columns of a table as `out`, and report.

    A row of the corpus takes the values of the one row of the table that says the same in
    `settings.on`. Columns that both have must say the same wherever the table says something.
    Whatever is refused is refused before anything is written.
    """
    refuse_out(
        out, {corpus_path: "the corpus that is joined", table_path: "the table that is joined"}
    )
    old = load_corpus(corpus_path, key=settings.key)
    rows = _without_derived(old.rows)
    table, given = _read(table_path, rows, corpus_path, settings)
    aliases: dict[str, int] = {}
    if settings.known_encoders:
        rows, aliases = _with_known_encoders(rows)
        table, _ = _with_known_encoders(table)
        # Two names of one encoder may have told two rows apart.
        valid_rows(rows, key=settings.key, where=str(corpus_path), place=_place)
    keys, table_keys = _keys(rows, table, settings.on, corpus_path, table_path)
    partner = keys.join(
        table_keys.with_row_index("row"), on=keys.columns, how="left", maintain_order="left"
    )["row"]
    lone = keys.filter(partner.is_null()).unique(maintain_order=True)
    unused = table_keys.join(keys, on=keys.columns, how="anti", maintain_order="left")
    report = JoinReport(
        corpus=out,
        manifest=manifest_path(out),
        rows=partner.len() - partner.null_count(),
        columns=tuple(name for name in given if name not in rows.columns),
        joined=table.height - unused.height,
        left_out=partner.null_count(),
        corpus_without_table=tuple(map(_named, lone.iter_rows())),
        table_without_corpus=tuple(map(_named, unused.iter_rows())),
        aliases=aliases,
        warnings=old.warnings,
    )
    _refuse_unjoined(report, settings, table_path)
    rows, partners = rows.filter(partner.is_not_null()), table[partner.drop_nulls()]
    for name in given:
        if name in rows.columns:
            _refuse_clash(name, rows, partners, settings.on, table_path)
    write_corpus(rows.with_columns(partners.select(report.columns)), out)
    return _with_manifest(report, corpus_path, table_path, settings, command)


def _without_derived(rows: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` without bits per pixel, where loading gives the same: a join may correct it."""
    if "bits_per_pixel" not in rows.columns:
        return rows
    stored = rows.drop("bits_per_pixel")
    derived, _ = with_bits_per_pixel(stored)
    same = "bits_per_pixel" in derived.columns and derived["bits_per_pixel"].equals(
        rows["bits_per_pixel"]
    )
    return stored if same else rows


def _read(
    path: Path, rows: pl.DataFrame, corpus: Path, settings: JoinSettings
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return the table, of the types of the corpus, and the names of the columns to take of it."""
    table = read_table(
        path, texts=[name for name, kind in rows.schema.items() if not kind.is_numeric()]
    )
    if table.is_empty():
        raise BadInput("holds no rows", where=str(path))
    for name in settings.on:
        require_column(name, rows.columns, str(corpus))
        require_column(name, table.columns, str(path))
        if rows[name].dtype.is_nested():
            raise BadInput(f"{name} is a list or an object", where=str(corpus))
        if rows[name].dtype.is_numeric() and not table[name].dtype.is_numeric():
            at = table[name].cast(pl.Float64, strict=False).is_null().arg_max() or 0
            raise BadInput(
                f"{name} is a number in the corpus, and here it is not",
                where=f"{path} {_place(at)}",
                found=repr(table[name][at]),
            )
    for name in settings.columns:
        require_column(name, table.columns, str(path))
        if name in settings.on:
            raise BadSettings(f"{name} is joined on", where="--columns", fix="leave it out")
    given = settings.columns or tuple(name for name in table.columns if name not in settings.on)
    if not given:
        raise BadInput("there is no column to add", where=str(path), found=listed(table.columns))
    return table, given


def _with_known_encoders(table: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return `table` with encoders by their known names, and the rows of each renamed one."""
    if "encoder" not in table.columns:
        return table, {}
    counts = table.group_by("encoder").len().drop_nulls().sort("encoder").rows()
    known = {name: known_encoder(name) or name for name, _ in counts}
    renamed = {f"{name} -> {known[name]}": n for name, n in counts if known[name] != name}
    return table.with_columns(pl.col("encoder").replace(known)), renamed


def _keys(
    rows: pl.DataFrame, table: pl.DataFrame, on: Sequence[str], corpus: Path, path: Path
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return what names the rows of both, of equal types, none of it null, unique in the table."""
    both = []
    for frame, where in ((rows, corpus), (table, path)):
        keys = frame.select(pl.col(name).cast(_kind(rows[name], table[name])) for name in on)
        # A number that is none names nothing either.
        keys = keys.with_columns(pl.col(pl.Float64).fill_nan(None))
        for name in on:
            if keys[name].has_nulls():
                raise BadInput(
                    f"{name} has no value",
                    where=f"{where} {_place(keys[name].is_null().arg_max() or 0)}",
                    fix="fill it in or drop the row",
                )
        keys.columns = [str(at) for at in range(len(on))]
        both.append(keys)
    keys, table_keys = both
    again = table_keys.is_duplicated()
    if again.any():
        groups = table_keys.with_row_index("row").filter(again).group_by(table_keys.columns)
        pairs = groups.agg("row").select(
            one=pl.col("row").list.get(0), other=pl.col("row").list.get(1)
        )
        one, other = pairs.sort("other").row(0)
        raise BadInput(
            f"two rows for {_named(table_keys.row(one))}, {_place(one)} and {_place(other)}",
            where=str(path),
            fix="keep one, or name the column that tells them apart in --on",
        )
    return keys, table_keys


def _kind(one: pl.Series, other: pl.Series) -> type[pl.DataType]:
    """Return the type in which both can be compared: 64-bit numbers do not all fit a Float64."""
    if one.dtype.is_integer() and other.dtype.is_integer():
        return pl.Int64
    return pl.Float64 if one.dtype.is_numeric() and other.dtype.is_numeric() else pl.String


def _refuse_unjoined(report: JoinReport, settings: JoinSettings, path: Path) -> None:
    lone, unused = report.corpus_without_table, report.table_without_corpus
    if not (lone or unused) or (settings.allow_unjoined and report.rows):
        return
    sides = [
        f"{count} of the {side} ({listed(names)})"
        for count, side, names in (
            (report.left_out, "corpus", lone),
            (len(unused), "table", unused),
        )
        if names
    ]
    raise BadInput(
        f"rows without a partner: {', '.join(sides)}",
        where=str(path),
        fix="name them alike, or leave these out with --allow-unjoined"
        if report.rows
        else f"none match: give the columns that say the same in both with --on, "
        f"not {','.join(settings.on)}",
    )


def _refuse_clash(
    name: str, rows: pl.DataFrame, partners: pl.DataFrame, on: Sequence[str], path: Path
) -> None:
    """Refuse a column that both have where the table says something else."""
    known, told = rows[name], partners[name]
    kind = _kind(known, told)
    other = told.is_not_null() & known.cast(kind).ne_missing(told.cast(kind))
    if other.any():
        at = other.arg_max() or 0
        names = ", ".join(f"{column} {rows[column][at]}" for column in on)
        raise BadInput(
            f"{name} of {names} is {told[at]} here and {known[at]} in the corpus",
            where=str(path),
            fix="correct one of them, or name the columns to take with --columns",
        )


def _with_manifest(
    report: JoinReport,
    corpus_path: Path,
    table_path: Path,
    settings: JoinSettings,
    command: Sequence[str],
) -> JoinReport:
    """Write the manifest of the new corpus; return the report with what loading it says."""
    corpus = load_corpus(report.corpus, key=settings.key)
    write_json(
        report.manifest,
        {
            "schema_version": SCHEMA_VERSION,
            "loso_version": version("loso"),
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(command),
            "corpus": {"file": report.corpus.name, "rows": len(corpus), "sha256": corpus.sha256},
            "encoder_aliases": dict(report.aliases),
            "joined_corpus": {
                "file": corpus_path.name,
                "left_out": report.left_out,
                "sha256": sha256_of(corpus_path),
                "without_table": list(report.corpus_without_table),
            },
            "joined_table": {
                "columns": list(report.columns),
                "file": table_path.name,
                "on": list(settings.on),
                "sha256": sha256_of(table_path),
                "without_corpus": list(report.table_without_corpus),
            },
            "warnings": list(corpus.warnings),
        },
    )
    return replace(report, warnings=corpus.warnings)


def _named(key: Sequence[str | float]) -> str:
    parts = (part if isinstance(part, str) else str(part).removesuffix(".0") for part in key)
    return " ".join(parts)


def _place(row: int) -> str:
    return f"row {row + 1}"
