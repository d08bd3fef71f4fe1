"""Out-of-fold predictions, read back: they must give the very scores that the seed files claim.

They must also be what they say: of the corpus's own rows, each seed asked the same questions, and
each seed with answers of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Final

import polars as pl

from loso.corpus.load import Corpus
from loso.corpus.view import view
from loso.crossval import score_folds
from loso.errors import BadEvidence
from loso.evidence import Evidence, differ
from loso.schema import IDENTITY
from loso.seedfile import (
    SeedFile,
    predictions_file_name,
    recipe_of,
    seed_file_name,
    training_command,
)
from loso.stored import read_parquet

__all__ = ["check_against_corpus", "read_predictions", "read_table"]

_COLUMNS: Final = {
    "row": pl.Int64,
    "fold": pl.Int64,
    "src": pl.String,
    "encoder": pl.String,
    "preset": pl.String,
    "cq": pl.Float64,
    "frame_index": pl.Int64,
    "y_true": pl.Float64,
    "y_pred": pl.Float64,
}

_LARGEST: Final = 1e100
"""Far beyond any score, and the squares of a whole corpus of such numbers still have a sum."""


def read_predictions(evidence: Evidence) -> dict[int, pl.DataFrame]:
    """Return each seed's predictions in order of `row`, proven to give the scores of its file.

    BadEvidence where a fold's numbers are not what its predictions give, where a row is held out
    twice, never or in the fold of another source, where two seeds were asked to predict different
    rows, and where two seeds give one answer. A seed whose file names no predictions is left out.
    """
    frames: dict[int, pl.DataFrame] = {}
    for seed, file in evidence.seed_files.items():
        if file.predictions is None:
            continue
        path = evidence.loso_dir / predictions_file_name(seed)
        frame = read_table(path, seed)
        _check_rows(path, frame, file)
        _check_scores(path, frame, file)
        frames[seed] = frame
    _check_shared(evidence.loso_dir, frames)
    _check_own(evidence.loso_dir, frames)
    return frames


def check_against_corpus(
    evidence: Evidence, predictions: Mapping[int, pl.DataFrame], corpus: Corpus
) -> None:
    """Refuse, as BadEvidence, predictions that are not of the rows of `corpus`.

    Its bytes must be those that the seed files name. Every row must be predicted unless its source
    is excluded, under its own names and with its own target. `predictions` comes from
    `read_predictions`, so what holds for one seed's rows holds for all.
    """
    file = next(iter(evidence.seed_files.values()))
    if corpus.sha256 != file.corpus_sha256:
        raise BadEvidence(
            "not the corpus that the seeds were trained on",
            where=str(corpus.path),
            expected=f"sha256 {file.corpus_sha256 or 'in the seed files, which record none'}",
            found=corpus.sha256,
            fix="name that corpus, or train on this one",
        )
    frame = predictions[file.seed]
    path, seeds = evidence.loso_dir / predictions_file_name(file.seed), list(predictions)
    if file.corpus_rows != len(corpus):
        problem = f"corpus_rows in {seed_file_name(file.seed)} is not that of the corpus"
        raise _refusal(problem, path, seeds, len(corpus), file.corpus_rows)
    whole = view(corpus, recipe_of(file))
    strange = sorted({*file.excluded_sources} - {*whole.sources})
    if strange:
        problem = f"excluded source {strange[0]} is not in the corpus"
        raise _refusal(problem, path, seeds, f"one of {', '.join(whole.sources)}")
    asked = _questions(whole, file, path)
    kept = asked.filter(~pl.col("src").is_in(file.excluded_sources))
    for one, two, problem in (
        (kept, frame, "is not predicted, though its source is not excluded"),
        (frame, kept, "is predicted, though its source is excluded"),
    ):
        rows = one.join(two, on="row", how="anti", maintain_order="left")["row"]
        if len(rows):
            raise _refusal(
                f"row {rows[0]} of source {asked['src'][rows[0]]} {problem}", path, seeds
            )
    for name in kept.columns:
        if name not in frame.columns:
            raise _refusal(f"no column {name}, which the corpus has", path, seeds)
        ours, theirs = kept[name], frame[name]
        if not theirs.equals(ours):
            at = theirs.ne_missing(ours).arg_max() or 0
            problem = f"{name} of row {frame['row'][at]} is not that of the corpus"
            raise _refusal(problem, path, seeds, ours[at], theirs[at])


def _questions(corpus: Corpus, file: SeedFile, path: Path) -> pl.DataFrame:
    """Return what every row of `corpus` asks: its place, its names and its target `y_true`."""
    rows = corpus.rows
    if file.target not in rows.columns:
        problem = f"target {file.target} is not a column of the corpus"
        raise _refusal(problem, path, [file.seed])
    if "preset" not in rows.columns:
        rows = rows.with_columns(preset=pl.lit(None))
    return rows.select(
        "row",
        *(pl.col(n).cast(_COLUMNS.get(n, pl.String)) for n in IDENTITY if n in rows.columns),
        pl.col(file.target).cast(pl.Float64, strict=False).alias("y_true"),
    )


def _refusal(
    problem: str, path: Path, seeds: Iterable[int], expected: object = "", found: object = ""
) -> BadEvidence:
    folder = path if path.is_dir() else path.parent
    return BadEvidence(
        problem,
        where=str(path),
        expected=str(expected),
        found=str(found),
        fix=f"train again with {training_command(folder, seeds, force=True)}",
    )


def read_table(path: Path, seed: int) -> pl.DataFrame:
    """Return a seed's predictions in order of `row`; BadEvidence where they are no such table."""
    try:
        frame = read_parquet(path.read_bytes())
        frame = frame.with_columns(pl.col(name).cast(kind) for name, kind in _COLUMNS.items())
        frame = frame.with_columns(pl.col("^clip$").cast(pl.String))
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        problem = f"cannot be read as predictions ({str(error).splitlines()[0]})"
        raise _refusal(problem, path, [seed]) from None
    for name, kind in _COLUMNS.items():
        if name == "preset":  # null where the corpus records none
            continue
        unusable, problem = pl.col(name).is_null(), f"{name} is missing"
        if kind == pl.Float64:
            unusable |= ~(pl.col(name).abs() <= _LARGEST)
            problem += f", not finite or beyond {_LARGEST:g}"
        count = frame.filter(unusable).height
        if count:
            raise _refusal(f"{problem} in {count} of {frame.height} rows", path, [seed])
    return frame.sort("row")


def _check_rows(path: Path, frame: pl.DataFrame, file: SeedFile) -> None:
    """Refuse predictions that do not hold out each row once, with its whole source."""
    seeds, total, absent = [file.seed], file.corpus_rows or 0, len(file.excluded_sources)
    again = frame.filter(pl.col("row").is_duplicated())["row"]
    if len(again):
        raise _refusal(f"row {again[0]} is held out more than once", path, seeds)
    beyond = frame.filter(~pl.col("row").is_between(0, total - 1))["row"]
    if len(beyond):
        problem = f"row {beyond[0]} is not in the corpus"
        raise _refusal(problem, path, seeds, f"0..{total - 1}")
    names = [fold.held_out for fold in file.folds]
    strange = frame.filter(~pl.col("fold").is_in(range(len(names))))["fold"]
    if len(strange):
        raise _refusal(f"fold {strange[0]} is not in {seed_file_name(file.seed)}", path, seeds)
    held_out = pl.col("fold").replace_strict(dict(enumerate(names)), return_dtype=pl.String)
    astray = frame.filter(pl.col("src") != held_out)
    if astray.height:
        row, source, fold = astray.select("row", "src", "fold").row(0)
        problem = f"row {row} of source {source} is held out in the fold of {names[fold]}"
        raise _refusal(problem, path, seeds)
    counts = dict(frame.group_by("fold").len().iter_rows())
    for index, fold in enumerate(file.folds):
        if counts.get(index, 0) != fold.n_val:
            problem = f"rows of held-out source {fold.held_out}"
            raise _refusal(problem, path, seeds, fold.n_val, counts.get(index, 0))
    every_row_counts = file.unit != "clip" and not file.inputs.drop_first_frame
    if every_row_counts and not absent and frame.height != total:
        raise _refusal("not every row is held out", path, seeds, total, frame.height)
    if frame.height > total - absent:
        problem = "no rows are left for the excluded sources"
        raise _refusal(problem, path, seeds, f"at most {total - absent}", frame.height)


def _check_scores(path: Path, frame: pl.DataFrame, file: SeedFile) -> None:
    recomputed = score_folds(frame, [fold.held_out for fold in file.folds])
    for recorded, computed in zip(file.folds, recomputed, strict=True):
        for key in ("plcc", "srocc", "rmse"):
            ours, theirs = getattr(computed, key), getattr(recorded, key)
            if ours is None or theirs is None or differ(theirs, ours):
                name = seed_file_name(file.seed)
                problem = f"{key} of held-out source {recorded.held_out} in {name} is not borne out"
                expected = f"{ours}, from the predictions"
                raise _refusal(problem, path, [file.seed], expected, theirs)


def _check_shared(folder: Path, frames: Mapping[int, pl.DataFrame]) -> None:
    """Refuse seeds that were not asked the same: `y_pred` apart, their tables are one table."""
    for seed, frame in list(frames.items())[1:]:
        first = min(frames)
        names, others = sorted(frames[first].columns), sorted(frame.columns)
        if names != others:
            problem = f"the predictions of seeds {first} and {seed} differ in their columns"
            raise _refusal(problem, folder, [first, seed], ", ".join(names), ", ".join(others))
        for name in names:
            if name != "y_pred" and not frame[name].equals(frames[first][name]):
                problem = f"the predictions of seeds {first} and {seed} differ in {name}"
                raise _refusal(problem, folder, [first, seed])


def _check_own(folder: Path, frames: Mapping[int, pl.DataFrame]) -> None:
    """Refuse seeds that gave a whole source the same scores: their networks would be one."""
    for (a, one), (b, two) in combinations(frames.items(), 2):
        equal = one.select("src", same=one["y_pred"] == two["y_pred"])
        copied = equal.group_by("src").agg(pl.col("same").all()).filter("same")["src"].sort()
        if len(copied):
            problem = f"seeds {a} and {b} predict the same for source {copied[0]}, so one is a copy"
            raise _refusal(problem, folder, [a, b])
