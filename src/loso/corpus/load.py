"""A corpus file becomes rows that are safe to train on, and the hash that names them."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from loso.errors import BadCorpus
from loso.recipe import TrainingNeeds
from loso.schema import CANONICAL_6, ENCODER_VOCAB, REQUIRED_NUMBERS, REQUIRED_TEXTS

__all__ = ["Corpus", "load_corpus", "require_trainable"]

_TYPES = {
    **dict.fromkeys(REQUIRED_TEXTS, pl.String),
    **dict.fromkeys(REQUIRED_NUMBERS, pl.Float64),
    "frame_index": pl.Int64,
}


@dataclass(frozen=True)
class Corpus:
    """Rows in file order, and where they came from."""

    path: Path
    sha256: str
    rows: pl.DataFrame
    unknown_encoders: Mapping[str, int]
    warnings: tuple[str, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Distinct `src` names, sorted."""
        return tuple(self.rows["src"].unique().sort())

    @property
    def encoders(self) -> tuple[str, ...]:
        """Distinct encoder names, sorted."""
        return tuple(self.rows["encoder"].unique().sort())

    def __len__(self) -> int:
        return self.rows.height


def load_corpus(path: str | Path, *, key: Sequence[str] = ()) -> Corpus:
    """Return the corpus in `path`: JSONL, gzipped JSONL or Parquet."""
    del key
    path = Path(path)
    content = path.read_bytes()
    if path.suffix == ".parquet":
        rows = pl.read_parquet(content)
    else:
        text = gzip.decompress(content) if path.suffix == ".gz" else content
        rows = pl.read_ndjson(text, infer_schema_length=None)
    missing = [name for name in _TYPES if name not in rows.columns]
    if missing:
        raise BadCorpus(f"missing required columns: {', '.join(missing)}", where=str(path))
    rest = [name for name in rows.columns if name not in _TYPES]
    rows = rows.cast(_TYPES).select(
        *REQUIRED_TEXTS, "cq", "frame_index", "vmaf", *CANONICAL_6, *rest
    )
    names = rows.group_by("encoder").len().sort("encoder").rows()
    unknown = {name: count for name, count in names if name not in ENCODER_VOCAB}
    return Corpus(path, hashlib.sha256(content).hexdigest(), rows, unknown, ())


def require_trainable(corpus: Corpus, needs: TrainingNeeds) -> None:
    """Refuse a corpus that is too small to train on."""
    if len(corpus.sources) < needs.min_sources or len(corpus) < needs.min_rows:
        raise BadCorpus("too small to train on", where=str(corpus.path))
