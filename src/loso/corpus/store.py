"""Rows become a corpus file, in the format that its name says."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import polars as pl

from loso.corpus.manifest import manifest_path
from loso.errors import BadSettings
from loso.files import refuse_place_of, write_atomic

__all__ = ["refuse_out", "write_corpus", "write_lines"]

_FORMATS: Final = (".jsonl", ".jsonl.gz", ".parquet")


def refuse_out(out: Path, read: Mapping[Path, str]) -> None:
    """Refuse, as BadSettings, a new corpus in the place of what is `read`, by what that is.

    So is one that is none by its name, and one whose manifest would replace that of a file read.
    """
    if not out.name.endswith(_FORMATS):
        raise BadSettings(
            "not the name of a corpus",
            where="--out",
            expected=f"a name that ends in {', '.join(_FORMATS)}",
            found=out.name,
        )
    refuse_place_of(read, out, fix="give the new corpus another name")
    for path in read:
        if manifest_path(out).resolve() == manifest_path(path).resolve():
            raise BadSettings(
                "the manifest of the new corpus would take the place of the old one's",
                where="--out",
                found=str(out),
                fix="give the new corpus another name",
            )


def write_corpus(rows: pl.DataFrame, out: Path) -> None:
    """Write `rows` to `out`, a .jsonl, .jsonl.gz or .parquet file; equal rows give equal bytes."""
    with write_atomic(out) as temporary:
        if out.suffix == ".parquet":
            rows.write_parquet(temporary)
        elif out.suffix == ".gz":
            # Level 6 packs within a few percent of 9, in a fraction of its time. No time in the
            # header: equal rows give equal bytes.
            packed = gzip.compress(rows.write_ndjson().encode(), compresslevel=6, mtime=0)
            temporary.write_bytes(packed)
        else:
            rows.write_ndjson(temporary)


def write_lines(lines: Iterable[bytes], out: Path) -> None:
    """Write rows that are lines of JSON already to `out`, packed as a build packs them."""
    with write_atomic(out) as temporary, temporary.open("wb") as raw:
        if out.suffix != ".gz":
            raw.writelines(lines)
            return
        # No name and no time in gzip's header: equal rows give equal bytes.
        with gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
            packed.writelines(lines)
