"""All records of a run's folder, read once and held against each other's hashes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from loso.baselines import BaselinesFile, parse_baselines
from loso.corpus.load import Corpus, load_corpus
from loso.corpus.view import view
from loso.errors import BadCorpus, BadEvidence
from loso.evidence import collect_evidence
from loso.files import sha256_of
from loso.intervals import IntervalsFile, parse_intervals
from loso.recheck import read_table
from loso.recipe import DEFAULT_SEEDS, Recipe, is_mapped
from loso.run_folder import (
    BASELINES_FILE,
    INTERVALS_FILE,
    LOSSES_FILE,
    RUN_FILE,
    VERDICT_FILES,
    read_losses,
)
from loso.run_records import (
    AnyMade,
    Call,
    ShownVerdict,
    read_beside,
    read_calls,
    read_verdict,
)
from loso.seedfile import (
    SeedFile,
    predictions_file_name,
    read_seed_file,
    recipe_of,
    seed_file_name,
    training_command,
)

__all__ = ["RunRecords", "read_run"]


@dataclass(frozen=True)
class RunRecords:
    """What a run's folder holds, and `remarks` on what it lacks or what does not fit together.

    `rows` has a row for each out-of-fold prediction: the columns of `oof_seed{N}.parquet`, where
    `y_pred` is the mean of the seeds, `sigma` their standard deviation (ddof=1; null for one
    seed), and `error` is y_pred - y_true, all in the target's unit. `seen` holds the rows of
    `corpus` that the recipe saw, with the same `row`. `fresh` tells that the verdict speaks of the
    files as they stand.
    """

    run_dir: Path
    seed_files: tuple[SeedFile, ...]
    recipe: Recipe
    rows: pl.DataFrame
    calls: tuple[Call, ...]
    losses: pl.DataFrame
    verdict: ShownVerdict | None
    fresh: bool
    intervals: IntervalsFile | None
    baselines: BaselinesFile | None
    corpus: Corpus | None
    seen: Corpus | None
    hashes: Mapping[str, str]
    remarks: tuple[str, ...]

    @property
    def first(self) -> SeedFile:
        """The seed file that speaks for what all have in common."""
        return self.seed_files[0]

    def command(self, verb: str) -> str:
        """Return the command line that does `verb` to this folder and its corpus."""
        corpus = self.first.corpus or "CORPUS"
        return shlex.join(["loso", verb, str(self.run_dir), "--corpus", corpus])

    @property
    def unmapped(self) -> str:
        """What is to be said beside raw predictions of a target that is judged under a mapping."""
        if not is_mapped(self.recipe.target):
            return ""
        return (
            " Scores stand as the networks gave them, before the mapping that they are judged by."
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """Held-out sources, in the order of their folds."""
        return tuple(fold.held_out for fold in self.first.folds)


def read_run(
    run_dir: Path, corpus: Path | Corpus | None = None, *, key: tuple[str, ...] = ()
) -> RunRecords:
    """Return the records in `run_dir`; the corpus is the one given, or the one that they name.

    BadEvidence for a folder without seed files, for a damaged record, for predictions that are not
    the bytes that their seed file names, and where `corpus` is given and is another. What is not
    there, or was made of something else, is a remark.
    """
    run_dir = Path(run_dir)
    remarks: list[str] = []
    seed_files = _read_seed_files(run_dir)
    names = [seed_file_name(file.seed) for file in seed_files]
    names += [file.predictions.file for file in seed_files if file.predictions]
    beside = (INTERVALS_FILE, BASELINES_FILE, LOSSES_FILE, RUN_FILE, *VERDICT_FILES)
    names += [name for name in beside if (run_dir / name).is_file()]
    hashes = {name: sha256_of(run_dir / name) for name in names}
    try:
        remarks += collect_evidence(run_dir, [file.seed for file in seed_files]).warnings
    except BadEvidence as refusal:
        remarks.append(f"It cannot be judged: {refusal}")
    recipe = recipe_of(seed_files[0])
    rows = _read_rows(run_dir, seed_files, hashes)
    found = _read_corpus(corpus, key, seed_files[0], remarks)
    records = RunRecords(
        run_dir=run_dir,
        seed_files=seed_files,
        recipe=recipe,
        rows=rows,
        calls=_read_calls(run_dir, remarks),
        losses=read_losses(run_dir / LOSSES_FILE),
        verdict=(verdict := read_verdict(run_dir)),
        fresh=verdict is not None and _is_fresh(verdict, hashes, remarks),
        intervals=_read_beside(run_dir / INTERVALS_FILE, parse_intervals, seed_files, remarks),
        baselines=_read_beside(run_dir / BASELINES_FILE, parse_baselines, seed_files, remarks),
        corpus=found,
        seen=found and view(found, recipe, seed_files[0].excluded_sources),
        hashes=hashes,
        remarks=tuple(remarks),
    )
    changed = [name for name in names if sha256_of(run_dir / name) != hashes[name]]
    if changed:
        raise BadEvidence(
            f"changed while it was read: {', '.join(changed)}",
            where=str(run_dir),
            fix="run this again once nothing trains or judges in the folder",
        )
    return records


def _read_seed_files(run_dir: Path) -> tuple[SeedFile, ...]:
    if not run_dir.is_dir():
        raise BadEvidence(
            "not a folder", where=str(run_dir), fix="name the folder of a training run"
        )
    files = sorted(map(read_seed_file, run_dir.glob("loso_seed*.json")), key=lambda file: file.seed)
    if not files or any(file.predictions is None or not file.folds for file in files):
        raise BadEvidence(
            "no seed files with predictions, so there is nothing to draw",
            where=str(run_dir),
            expected="what loso train or loso run writes",
            fix=f"make it with {training_command(run_dir, DEFAULT_SEEDS)}",
        )
    return tuple(files)


def _read_rows(
    run_dir: Path, seed_files: Sequence[SeedFile], hashes: Mapping[str, str]
) -> pl.DataFrame:
    """Return the rows that all seeds predicted, with the mean and the spread of their answers."""
    tables = []
    for file in seed_files:
        if file.predictions is None:
            continue
        path = run_dir / file.predictions.file
        if hashes[path.name] != file.predictions.sha256:
            raise BadEvidence(
                f"not the predictions that {seed_file_name(file.seed)} was computed from",
                where=str(path),
                expected=file.predictions.sha256,
                found=hashes[path.name],
                fix=f"train again with {training_command(run_dir, [file.seed], force=True)}",
            )
        tables.append(read_table(path, file.seed))
        if not tables[-1]["row"].equals(tables[0]["row"]):
            raise BadEvidence(
                f"seeds {seed_files[0].seed} and {file.seed} were asked to predict other rows",
                where=str(run_dir),
                fix=f"train again with {training_command(run_dir, [file.seed], force=True)}",
            )
    answers = pl.DataFrame({f"{i}": table["y_pred"] for i, table in enumerate(tables)})
    spread = pl.concat_list(pl.all()).list.std(ddof=1)
    drawn = answers.select(y_pred=pl.mean_horizontal(pl.all()), sigma=spread)
    return (
        tables[0]
        .drop("y_pred")
        .hstack(drawn)
        .with_columns(error=pl.col("y_pred") - pl.col("y_true"))
    )


def _read_calls(run_dir: Path, remarks: list[str]) -> tuple[Call, ...]:
    try:
        return read_calls(run_dir)
    except BadEvidence as refusal:
        remarks.append(f"How it was trained is not recorded: {refusal}")
        return ()


def _is_fresh(verdict: ShownVerdict, hashes: Mapping[str, str], remarks: list[str]) -> bool:
    """Tell whether a verdict names the very files that stand in the folder."""
    judged = verdict.evidence
    named = (
        {}
        if judged is None
        else {
            **{seed_file_name(seed): sha256 for seed, sha256 in judged.seeds.items()},
            **{predictions_file_name(seed): sha256 for seed, sha256 in judged.predictions.items()},
            INTERVALS_FILE: judged.intervals_sha256,
            BASELINES_FILE: judged.baselines_sha256,
        }
    )
    changed = [name for name, sha256 in named.items() if hashes.get(name) != sha256]
    if not named:
        remarks.append("The verdict does not say which files it judged.")
    elif changed:
        remarks.append(
            f"The verdict was given before {', '.join(changed)} changed: judge again with "
            "loso validate."
        )
    return bool(named) and not changed


def _read_beside(
    path: Path,
    parse: Callable[[bytes, Path], AnyMade],
    seed_files: Sequence[SeedFile],
    remarks: list[str],
) -> AnyMade | None:
    found = read_beside(path, parse, seed_files)
    if found is None and path.is_file():
        remarks.append(f"{path.name} was made of other predictions than those in the folder.")
    return found


def _read_corpus(
    given: Path | Corpus | None,
    key: Sequence[str],
    record: SeedFile,
    remarks: list[str],
) -> Corpus | None:
    """Return the corpus given, or the one that is recorded where it is there, by its hash."""
    try:
        corpus = (
            given
            if isinstance(given, Corpus)
            else load_corpus(given or Path(record.corpus or ""), key=key)
        )
    except BadCorpus as refusal:
        if given is not None:
            raise
        remarks.append(f"The corpus is not where it was, so what is told of it is less: {refusal}")
        return None
    if corpus.sha256 == record.corpus_sha256:
        return corpus
    wrong = BadEvidence(
        "not the corpus that the seeds were trained on",
        where=str(corpus.path),
        expected=f"sha256 {record.corpus_sha256}",
        found=corpus.sha256,
        fix="name that corpus with --corpus",
    )
    if given is not None:
        raise wrong
    remarks.append(f"The corpus has changed since, so what is told of it is less: {wrong}")
    return None
