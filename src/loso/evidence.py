"""What a run's folder proves: its seed files, each checked alone and all against each other.

Whatever would make a gate's numbers mean something else than they say (a dry run, an undefined
fold, seeds of different corpora, an edited summary, one seed copied to pass as five) is refused
here, so that no arithmetic further on can turn broken evidence into a pass.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from loso.errors import BadEvidence
from loso.files import read_file, sha256_of
from loso.recipe import EVIDENCE_TOLERANCE, check_seeds
from loso.seedfile import (
    DRY_RUN,
    RECIPE_KEYS,
    SeedFile,
    parse_seed_file,
    predictions_file_name,
    seed_file_name,
    summarise,
    training_command,
)

__all__ = ["Evidence", "collect_evidence", "differ"]


@dataclass(frozen=True)
class Evidence:
    """Seed files that are fit to be judged, in ascending order, and the hashes of what was read.

    `taken_on_trust` says in sentences what files of the replaced trainer cannot prove,
    `not_judged` names the seed files in the folder that were not asked for.
    """

    loso_dir: Path
    seed_files: Mapping[int, SeedFile]
    seed_sha256: Mapping[int, str]
    predictions_sha256: Mapping[int, str]
    taken_on_trust: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before believing the judgement."""
        left_out = {
            "sources left out of the run": self.excluded_sources,
            "in the folder and not judged": self.not_judged,
        }
        sentences = [f"{what}: {', '.join(names)}" for what, names in left_out.items() if names]
        return (*self.taken_on_trust, *sentences)

    @property
    def excluded_sources(self) -> tuple[str, ...]:
        """Sources of the corpus on which no seed was trained or judged."""
        return next((file.excluded_sources for file in self.seed_files.values()), ())


@dataclass(frozen=True)
class _Fault:
    problem: str
    expected: object = ""
    found: object = ""
    fix: str = ""


def collect_evidence(loso_dir: Path, seeds: Sequence[int], *, allow_thin: bool = False) -> Evidence:
    """Return what the seed files in `loso_dir` prove; BadEvidence where they cannot be judged.

    With `allow_thin`, a file of the replaced trainer that holds a mean but no folds is taken as it
    is, with a warning.
    """
    contents = _read_all(loso_dir, seeds)
    files = {}
    for seed, content in contents.items():
        path = loso_dir / seed_file_name(seed)
        files[seed] = parse_seed_file(content, path)
        for fault in _faults(seed, files[seed], allow_thin=allow_thin):
            raise _refusal(fault, path, [seed])
    for fault in _differences(files):
        raise _refusal(fault, loso_dir, seeds)
    return Evidence(
        loso_dir,
        files,
        {seed: hashlib.sha256(content).hexdigest() for seed, content in contents.items()},
        _hash_predictions(loso_dir, files),
        tuple(_unproven(files)),
        _others(loso_dir, files),
    )


def differ(recorded: float, computed: float) -> bool:
    """Tell whether a recorded score is not what its evidence gives."""
    tolerance = EVIDENCE_TOLERANCE
    return not math.isclose(recorded, computed, rel_tol=tolerance, abs_tol=tolerance)


def _refusal(fault: _Fault, path: Path, seeds: Sequence[int]) -> BadEvidence:
    folder = path if path.is_dir() else path.parent
    return BadEvidence(
        fault.problem,
        where=str(path),
        expected=str(fault.expected),
        found=str(fault.found),
        fix=fault.fix or f"train again with {training_command(folder, seeds, force=True)}",
    )


def _read_all(loso_dir: Path, seeds: Sequence[int]) -> dict[int, bytes]:
    contents, missing = {}, []
    for seed in sorted(check_seeds(seeds)):
        path = loso_dir / seed_file_name(seed)
        try:
            contents[seed] = read_file(path)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(seed)
        except OSError as error:
            raise BadEvidence(f"cannot be read ({error.strerror})", where=str(path)) from None
    if not missing:
        return contents
    if not loso_dir.is_dir():
        raise BadEvidence(
            "not a folder", where=str(loso_dir), fix="name the folder of a training run"
        )
    names = ", ".join(seed_file_name(seed) for seed in missing)
    fix = f"make it with {training_command(loso_dir, missing)}"
    raise _refusal(_Fault(f"missing {names}", fix=fix), loso_dir, missing)


def _faults(seed: int, file: SeedFile, *, allow_thin: bool) -> Iterator[_Fault]:
    """Yield what is wrong with one seed file, the cause before its consequences."""
    if file.seed != seed:
        yield _Fault("the seed inside is not that of the file's name", seed, file.seed)
    if file.note == DRY_RUN:
        yield _Fault("a dry run (one epoch) proves nothing")
    own = predictions_file_name(seed)
    if file.predictions is not None and file.predictions.file != own:
        yield _Fault("names predictions that are not this seed's", own, file.predictions.file)
    if file.folds or not allow_thin or file.schema_version is not None:
        yield from _faults_of_folds(file)
        yield from _faults_of_summary(file)
    elif file.mean_plcc is None:
        yield _Fault("mean_plcc is undefined")


def _faults_of_folds(file: SeedFile) -> Iterator[_Fault]:
    times = Counter(fold.held_out for fold in file.folds)
    if not times:
        yield _Fault("no folds, so the mean cannot be checked")
    if len(times) < 2:
        yield _Fault("too few folds", "2 or more", len(times))
    if file.n_folds not in {None, len(file.folds)}:
        yield _Fault("n_folds disagrees with folds", len(file.folds), file.n_folds)
    for source, count in times.items():
        if count > 1:
            yield _Fault(f"source {source} is held out {count} times")
        if source in file.excluded_sources:
            yield _Fault(f"source {source} is held out and excluded")
    for fold in file.folds:
        for key in ("plcc", "srocc", "rmse"):
            if key in fold.model_fields_set and getattr(fold, key) is None:
                reason = f" ({fold.reason})" if fold.reason else ""
                yield _Fault(
                    f"{key} of held-out source {fold.held_out} is undefined{reason}",
                    fix="give that source rows of different quality, or train without it "
                    f"(loso train --exclude-source {shlex.quote(fold.held_out)})",
                )
    yield from _faults_of_row_counts(file)


def _faults_of_row_counts(file: SeedFile) -> Iterator[_Fault]:
    """Yield folds that do not split the same rows: each row is held out once."""
    counts = [(fold.n_train or 0, fold.n_val or 0) for fold in file.folds]
    total = sum(n_val for _, n_val in counts)
    for fold, (n_train, n_val) in zip(file.folds, counts, strict=True):
        if all(map(min, counts)) and n_train + n_val != total:
            yield _Fault(
                f"n_train and n_val of held-out source {fold.held_out} do not add up to all rows",
                total,
                f"{n_train} + {n_val}",
            )


def _faults_of_summary(file: SeedFile) -> Iterator[_Fault]:
    for key, computed in summarise(file.folds).items():
        recorded = getattr(file, key)
        if key not in file.model_fields_set or not isinstance(computed, float):
            continue
        if recorded is None or differ(recorded, computed):
            yield _Fault(f"{key} is not what the folds give", computed, recorded)


def _differences(files: Mapping[int, SeedFile]) -> Iterator[_Fault]:
    """Yield what keeps the seeds from being members of one ensemble."""
    first, *others = files
    for other in others:
        one, two = _comparable(files[first]), _comparable(files[other])
        for key in one | two:
            if one.get(key) != two.get(key):
                yield _Fault(
                    f"seeds {first} and {other} differ in {key}",
                    f"{one.get(key)} as in {seed_file_name(first)}",
                    f"{two.get(key)} in {seed_file_name(other)}",
                )
    named = {seed: file.predictions.sha256 for seed, file in files.items() if file.predictions}
    for a, b in combinations(named, 2):
        if named[a] == named[b]:
            yield _Fault(f"seeds {a} and {b} have the same predictions, so one is a copy")


def _comparable(file: SeedFile) -> dict[str, object]:
    """Return everything that two seeds of one run must have in common."""
    corpus = ["corpus"] if file.schema_version is None else ["corpus_sha256", "corpus_rows"]
    folds = {
        f"the fold of {fold.held_out}": f"n_train {fold.n_train}, n_val {fold.n_val}"
        for fold in file.folds
    }
    excluded = {"excluded_sources": sorted(file.excluded_sources)}
    keys = ("schema_version", *corpus, *RECIPE_KEYS)
    return {key: getattr(file, key) for key in keys} | excluded | folds


def _hash_predictions(loso_dir: Path, files: Mapping[int, SeedFile]) -> dict[int, str]:
    hashes = {}
    for seed, file in files.items():
        path = loso_dir / predictions_file_name(seed)
        if file.predictions is None:
            if path.exists():
                problem = f"predictions that {seed_file_name(seed)} does not name"
                raise _refusal(_Fault(problem), path, [seed])
            continue
        if not path.exists():
            raise _refusal(_Fault(f"missing predictions {path.name}"), loso_dir, [seed])
        hashes[seed] = sha256_of(path)
        if hashes[seed] != file.predictions.sha256:
            problem = f"not the predictions that {seed_file_name(seed)} was computed from"
            raise _refusal(_Fault(problem, file.predictions.sha256, hashes[seed]), path, [seed])
    return hashes


def _unproven(files: Mapping[int, SeedFile]) -> Iterator[str]:
    """Yield a sentence for each kind of proof that some seeds lack, naming them."""
    seeds: dict[str, list[int]] = {}
    for seed, file in files.items():
        for sentence in _taken_on_trust(file):
            seeds.setdefault(sentence, []).append(seed)
    for sentence, lacking in seeds.items():
        yield f"seed{'s' * (len(lacking) > 1)} {', '.join(map(str, lacking))}: {sentence}"


def _taken_on_trust(file: SeedFile) -> Iterator[str]:
    if not file.folds:
        yield "thin evidence, no folds: the mean PLCC is taken on trust"
    if file.corpus_sha256 is None:
        yield "no corpus_sha256: that the seeds saw one corpus is taken on trust"
    absent = [key for key in RECIPE_KEYS if getattr(file, key) is None]
    if absent:
        yield f"no {', '.join(absent)}: that the seeds share them is taken on trust"
    if file.predictions is None:
        yield "no predictions: the scores cannot be computed again"


def _others(loso_dir: Path, files: Mapping[int, SeedFile]) -> tuple[str, ...]:
    """Return the names of the seed files in `loso_dir` that are not among `files`."""
    judged = {seed_file_name(seed) for seed in files}
    names = {path.name for path in loso_dir.glob("loso_seed*.json")} - judged
    return tuple(sorted(names, key=lambda name: (len(name), name)))
