"""A corpus file becomes rows that are safe to train on, and the hash that names them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from loso.corpus.jsonl import MOST_LINE_BYTES, line_of, read_jsonl, refuse_long_lines
from loso.corpus.rows import identity_of, valid_rows
from loso.errors import BadCorpus
from loso.files import open_regular
from loso.recipe import TrainingNeeds
from loso.schema import ENCODER_VOCAB
from loso.stored import NotMeasured, read_parquet, unpack

__all__ = [
    "Corpus",
    "load_corpus",
    "parse_rows",
    "read_stored",
    "require_trainable",
    "with_bits_per_pixel",
]

_FORMATS: Final = (".jsonl", ".jsonl.gz", ".parquet")
_BUILD: Final = "loso corpus build --help"


@dataclass(frozen=True, eq=False)
class Corpus:
    """Rows in file order, and the bytes they came from.

    `rows` has the required columns first (`src` and `encoder` String, `frame_index` Int64, the
    others Float64), then every other column of the file, and `bits_per_pixel` where bitrate, rate
    and size give it. `sha256` is that of the file as stored,
    `unknown_encoders` counts the rows of each encoder outside the vocabulary, `warnings` are
    sentences for people, and `key` names the columns given beside those that always name a row.
    """

    path: Path
    sha256: str
    rows: pl.DataFrame
    unknown_encoders: Mapping[str, int]
    warnings: tuple[str, ...]
    key: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The distinct `src`, sorted."""
        return tuple(self.rows["src"].unique().sort())

    @property
    def encoders(self) -> tuple[str, ...]:
        """The distinct `encoder`, sorted."""
        return tuple(self.rows["encoder"].unique().sort())

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns whose values together name one row."""
        return identity_of(self.rows.columns, self.key)

    def __len__(self) -> int:
        return self.rows.height


def load_corpus(path: str | Path, *, key: Sequence[str] = ()) -> Corpus:
    """Return the corpus in a .jsonl, .jsonl.gz or .parquet file, read whole and validated.

    `key` adds columns to the identity of a row (source, encoder, preset, quality, clip, frame).
    Blank lines and a byte order mark are skipped; one row is a corpus. BadCorpus names file, line
    and column of what cannot be used: see `read_jsonl` and `valid_rows`.
    """
    path = Path(path)
    content = read_stored(path)
    with ThreadPoolExecutor(max_workers=1) as beside:  # a sixth of the time, so beside the rest
        digest = beside.submit(hashlib.sha256, content)
        rows, derived = with_bits_per_pixel(parse_rows(content, path, key=key)[0])
    unknown = _unknown_encoders(rows)
    return Corpus(
        path=path,
        sha256=digest.result().hexdigest(),
        rows=rows,
        unknown_encoders=unknown,
        warnings=(*_warnings(unknown), *derived),
        key=tuple(key),
    )


def require_trainable(corpus: Corpus, needs: TrainingNeeds) -> None:
    """Refuse, as BadCorpus, fewer sources or rows than training needs."""
    if len(corpus.sources) < needs.min_sources:
        raise BadCorpus(
            "too few sources to train on",
            where=str(corpus.path),
            expected=f"at least {needs.min_sources}: each is held out once",
            found=f"{len(corpus.sources)} ({', '.join(corpus.sources)})",
            fix=f"add clips of other sources: {_BUILD}",
        )
    if len(corpus) < needs.min_rows:
        raise BadCorpus(
            "too few rows to train on",
            where=str(corpus.path),
            expected=f"at least {needs.min_rows}",
            found=str(len(corpus)),
            fix=f"build a larger corpus: {_BUILD}",
        )


def read_stored(path: Path) -> bytes:
    """Return the bytes of a corpus file; BadCorpus where it is none by its name, or empty."""
    where, build = str(path), f"build a corpus: {_BUILD}"
    try:
        with open_regular(path) as stream:
            if not path.name.lower().endswith(_FORMATS):
                raise BadCorpus(
                    "not a corpus file by its name",
                    where=where,
                    expected=f"a name that ends in {', '.join(_FORMATS)}",
                    fix="rename or convert it",
                )
            if path.name.lower().endswith(".jsonl"):  # before the memory for all is taken
                refuse_long_lines(stream.read(MOST_LINE_BYTES), where)
                stream.seek(0)
            content = stream.read()
    except FileNotFoundError:
        raise BadCorpus("file not found", where=where, fix=build) from None
    except IsADirectoryError:
        raise BadCorpus("a folder, not a file", where=where, fix="name a file inside it") from None
    except OSError as error:
        raise BadCorpus(f"cannot be read ({error.strerror})", where=where) from None
    if not content:
        raise BadCorpus("the file is empty", where=where, expected="at least one row", fix=build)
    return content


def parse_rows(
    content: bytes, path: Path, *, key: Sequence[str] = ()
) -> tuple[pl.DataFrame, bytes | None]:
    """Return the valid rows in the bytes of `path`, and the JSON lines they stand in, if any."""
    where, name = str(path), path.name.lower()
    if name.endswith(".parquet"):
        table = _read_parquet(content, where)
        return valid_rows(table, key=key, where=where, place=lambda row: f"row {row + 1}"), None
    text = _decompress(content, where) if name.endswith(".gz") else content
    rows = valid_rows(
        read_jsonl(text, where),
        key=key,
        where=where,
        place=lambda row: f"line {line_of(row, text)}",
    )
    return rows, text


def _decompress(content: bytes, where: str) -> bytes:
    try:
        return unpack(content)
    except ValueError as error:
        raise BadCorpus(str(error), where=where, fix="copy or compress it again") from None


def _read_parquet(content: bytes, where: str) -> pl.DataFrame:
    try:
        return read_parquet(content)
    except NotMeasured as error:
        raise BadCorpus(str(error), where=where, fix=error.fix) from None
    except ValueError as error:
        raise BadCorpus(
            f"not a whole Parquet file ({error})", where=where, fix="copy or write it again"
        ) from None


def with_bits_per_pixel(rows: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return `rows` with the bits that a pixel of the coded video costs, and what was assumed.

    The column `bits_per_pixel` is derived where it is not there, and bitrate, rate and size are.
    """
    needed = ("bitrate_kbps", "fps", "height")
    have = all(name in rows.columns and rows[name].dtype.is_numeric() for name in needed)
    if "bits_per_pixel" in rows.columns or not have:
        return rows, ()
    warnings: tuple[str, ...] = ()
    height = pl.col("height").cast(pl.Float64)
    width = height * 16 / 9
    if "width" in rows.columns and rows["width"].dtype.is_numeric():
        width = pl.col("width")
    else:
        warnings = ("no column width: bits_per_pixel takes it as 16:9 of the height",)
    pixels = width * height * pl.col("fps")
    return rows.with_columns(bits_per_pixel=1000 * pl.col("bitrate_kbps") / pixels), warnings


def _unknown_encoders(rows: pl.DataFrame) -> dict[str, int]:
    counts = rows.group_by("encoder").len().sort("encoder").iter_rows()
    return {encoder: n for encoder, n in counts if encoder not in ENCODER_VOCAB}


def _warnings(unknown_encoders: Mapping[str, int]) -> tuple[str, ...]:
    if not unknown_encoders:
        return ()
    counts = ", ".join(f"{encoder} {n}" for encoder, n in unknown_encoders.items())
    return (f"encoders outside the vocabulary share its slot unknown; rows of each: {counts}",)
