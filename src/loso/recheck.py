"""Out-of-fold predictions, read back: they must give the very scores that the seed files claim."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl

from loso.crossval import score_folds
from loso.errors import BadEvidence
from loso.evidence import Evidence, differ
from loso.seedfile import SeedFile, seed_file_name

__all__ = ["read_predictions"]

_COLUMNS: Final = {
    "row": pl.Int64,
    "fold": pl.Int64,
    "src": pl.String,
    "encoder": pl.String,
    "cq": pl.Float64,
    "frame_index": pl.Int64,
    "y_true": pl.Float64,
    "y_pred": pl.Float64,
}
_SHARED: Final = tuple(name for name in _COLUMNS if name != "y_pred")
"""Columns that all seeds of a run have in common: they were asked the same questions."""


def read_predictions(evidence: Evidence) -> dict[int, pl.DataFrame]:
    """Return each seed's predictions in order of `row`, proven to give the scores of its file.

    BadEvidence where a fold's numbers are not what its predictions give, where a row is held out
    twice or never, where a source is split over folds, or where two seeds were asked to predict
    different rows. A seed whose file names no predictions is left out.
    """
    frames: dict[int, pl.DataFrame] = {}
    for seed, file in evidence.seed_files.items():
        if file.predictions is None:
            continue
        path = evidence.loso_dir / file.predictions.file
        frame = _read(path)
        _check_rows(path, frame, file)
        _check_scores(path, frame, file)
        frames[seed] = frame
    _check_shared(evidence, frames)
    return frames


def _refusal(problem: str, path: Path, expected: object = "", found: object = "") -> BadEvidence:
    return BadEvidence(
        problem,
        where=str(path),
        expected=str(expected),
        found=str(found),
        fix="train the run again: loso train --force",
    )


def _read(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path.read_bytes())
        frame = frame.with_columns(pl.col(name).cast(kind) for name, kind in _COLUMNS.items())
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        problem = f"cannot be read as predictions ({str(error).splitlines()[0]})"
        raise _refusal(problem, path) from None
    for name, kind in _COLUMNS.items():
        usable = pl.col(name).is_not_null()
        if kind == pl.Float64:
            usable &= pl.col(name).is_finite()
        count = frame.filter(~usable).height
        if count:
            raise _refusal(f"{name} is missing or not finite", path, "every row", f"{count} rows")
    return frame.sort("row")


def _check_rows(path: Path, frame: pl.DataFrame, file: SeedFile) -> None:
    """Refuse predictions that do not hold out each row once, with its whole source."""
    again = frame.filter(pl.col("row").is_duplicated())["row"]
    if len(again):
        raise _refusal(f"row {again[0]} is held out more than once", path)
    names = [fold.held_out for fold in file.folds]
    strange = frame.filter(~pl.col("fold").is_in(range(len(names))))["fold"]
    if len(strange):
        raise _refusal(f"fold {strange[0]} is not in {seed_file_name(file.seed)}", path)
    counts = dict(frame.group_by("fold").len().iter_rows())
    for index, fold in enumerate(file.folds):
        if counts.get(index, 0) != fold.n_val:
            problem = f"rows of held-out source {fold.held_out}"
            raise _refusal(problem, path, fold.n_val, counts.get(index, 0))
    if not file.excluded_sources and frame.height != file.corpus_rows:
        raise _refusal("not every row is held out", path, file.corpus_rows, frame.height)
    fold_of: dict[str, int] = {}
    for source, index in frame.select("src", "fold").unique().sort("src", "fold").iter_rows():
        if fold_of.setdefault(source, index) != index:
            raise _refusal(f"source {source} is split over folds", path)
        if source in names and names[index] != source:
            raise _refusal(f"source {source} is held out in the fold of {names[index]}", path)


def _check_scores(path: Path, frame: pl.DataFrame, file: SeedFile) -> None:
    recomputed = score_folds(frame, [fold.held_out for fold in file.folds])
    for recorded, computed in zip(file.folds, recomputed, strict=True):
        for key in ("plcc", "srocc", "rmse"):
            ours, theirs = getattr(computed, key), getattr(recorded, key)
            if ours is None or theirs is None or differ(theirs, ours):
                name = seed_file_name(file.seed)
                problem = f"{key} of held-out source {recorded.held_out} in {name} is not borne out"
                raise _refusal(problem, path, f"{ours}, from the predictions", theirs)


def _check_shared(evidence: Evidence, frames: Mapping[int, pl.DataFrame]) -> None:
    for seed, frame in list(frames.items())[1:]:
        first = min(frames)
        for name in _SHARED:
            if not frame[name].equals(frames[first][name]):
                problem = f"the predictions of seeds {first} and {seed} differ in {name}"
                raise _refusal(problem, evidence.loso_dir)
