"""On what grounds a model may be made of a run: a PROMOTE that speaks of the very bytes there are.

A verdict is read as what it is, a file that anybody may have edited: its hashes are held against
the run, and its numbers against what the run's own records give.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loso.baselines import Gain
from loso.calibration import check_rules
from loso.corpus.load import Corpus
from loso.errors import BadInput, Refused
from loso.evidence import Evidence, collect_evidence, differ
from loso.files import read_file, sha256_of
from loso.gate import evaluate_gate
from loso.intervals import IntervalsFile, parse_intervals
from loso.recheck import check_against_corpus, read_predictions
from loso.recipe import GateThresholds, is_mapped
from loso.records import OneFault, first_fault
from loso.run_folder import INTERVALS_FILE, VERDICT_FILES
from loso.seedfile import predictions_file_name, recipe_of, seed_file_name

__all__ = [
    "GATE_KEYS",
    "OF_THE_SEED",
    "Grounds",
    "Promote",
    "PromoteEvidence",
    "PromoteGate",
    "VerdictFile",
    "find_grounds",
    "lacks_gain",
    "loose_limits",
    "read_promote",
]

_PROMOTE, _HOLD = VERDICT_FILES
_GATE_NUMBERS: Final = ("mean_plcc", "plcc_spread")

GATE_KEYS: Final = {
    "passed": "passed",
    "mean_plcc": "mean_plcc",
    "mean_plcc_threshold": "mean_plcc_threshold",
    "plcc_spread": "plcc_spread",
    "plcc_spread_max": "plcc_spread_max",
    "per_seed_min": "per_seed_min_threshold",
}
"""Numbers of a verdict's gate, and their names in a sidecar."""

OF_THE_SEED: Final = "this_seed_loso_plcc"
"""The name in a sidecar of what the gate says of its own seed."""

_LIMITS: Final = ("mean_plcc_threshold", "plcc_spread_max", "per_seed_min")


class _Record(OneFault, BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class PromoteGate(_Record):
    """What the gate found, and the limits it was held against."""

    passed: bool
    mean_plcc: float
    mean_plcc_threshold: float
    plcc_spread: float
    plcc_spread_max: float
    per_seed_plccs: dict[int, Annotated[float, Field(ge=-1.0, le=1.0)]]
    per_seed_min: float
    gain_over_vmaf: Gain | None = None

    def of_seed(self, seed: int) -> dict[str, Any]:
        """Return what a member's sidecar repeats of the gate."""
        numbers = {theirs: getattr(self, ours) for ours, theirs in GATE_KEYS.items()}
        return {
            "verdict": "PROMOTE",
            **numbers,
            OF_THE_SEED: self.per_seed_plccs.get(seed),
        }


class PromoteEvidence(_Record):
    """The sha256 of all that was judged."""

    corpus_sha256: str | None = None
    seeds: dict[int, str]
    predictions: dict[int, str]
    intervals_sha256: str | None = None
    baselines_sha256: str | None = None
    excluded_sources: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what a sidecar and a promotion repeat of it: the keys that the verdict has."""
        return self.model_dump(mode="json", exclude_unset=True)


class VerdictFile(_Record):
    """A verdict as anybody may have written it; `evidence` is None where it names no bytes."""

    verdict: Literal["PROMOTE", "HOLD"]
    generated_at_utc: str = ""
    seeds: tuple[int, ...]
    gate: PromoteGate
    corpus: dict[str, Any] = {}
    evidence: PromoteEvidence | None = None


@dataclass(frozen=True)
class Promote:
    """A verdict to promote, and the sha256 of the file it stands in."""

    sha256: str
    generated_at_utc: str
    seeds: tuple[int, ...]
    gate: PromoteGate
    evidence: PromoteEvidence


@dataclass(frozen=True)
class Grounds:
    """All that a model's records cite: the verdict, the run it speaks of, and its intervals."""

    promote: Promote
    evidence: Evidence
    intervals: IntervalsFile | None


def loose_limits(gate: Mapping[str, Any]) -> dict[str, float]:
    """Return the limits of a gate that let more through than the standard ones.

    >>> loose_limits({"mean_plcc_threshold": 0.5, "plcc_spread_max": 0.005, "per_seed_min": 0.99})
    {'mean_plcc_threshold': 0.5}
    """
    standard = GateThresholds()
    looser = {"plcc_spread_max": operator.gt}
    return {
        name: gate[name]
        for name in _LIMITS
        if looser.get(name, operator.lt)(gate[name], getattr(standard, name))
    }


def lacks_gain(gate: PromoteGate, target: str) -> bool:
    """Tell whether a gate does not say that a model beats VMAF, which one of another target must.

    VMAF itself need not: it is the target.
    """
    gain = gate.gain_over_vmaf
    return is_mapped(target) and (gain is None or not gain.beats)


def read_promote(path: Path) -> Promote:
    """Return the verdict in a file; BadInput where it is none, Refused unless it is to promote.

    Refused too where it says not what it judged, as those of the replaced validator do.
    """
    try:
        content = read_file(path)
    except OSError as error:
        raise BadInput(
            f"cannot be read ({error.strerror})",
            where=str(path),
            fix="name the PROMOTE.json that loso validate wrote",
        ) from None
    try:
        verdict = VerdictFile.model_validate_json(content)
    except ValidationError as error:
        key, message, _ = first_fault(error)
        raise BadInput(f"not a verdict: {key or 'the file'}: {message}", where=str(path)) from None
    if verdict.verdict != "PROMOTE" or not verdict.gate.passed:
        raise Refused("the verdict is not to promote", where=str(path), found=verdict.verdict)
    if verdict.evidence is None or verdict.evidence.corpus_sha256 is None:
        raise Refused(
            "the verdict does not say which bytes it judged",
            where=str(path),
            fix=f"judge the run again: loso validate {path.parent} --corpus CORPUS",
        )
    return Promote(
        sha256=hashlib.sha256(content).hexdigest(),
        generated_at_utc=verdict.generated_at_utc,
        seeds=tuple(sorted(verdict.seeds)),
        gate=verdict.gate,
        evidence=verdict.evidence,
    )


def find_grounds(run_dir: Path, corpus: Corpus) -> Grounds:
    """Return the grounds on which models may be made of a run; Refused says why there are none.

    The verdict in the folder must be PROMOTE, of these seed files, predictions, intervals and this
    corpus by sha256, with the numbers that the seed files give; predictions are held against their
    rows in the corpus (BadEvidence).
    """
    if not run_dir.is_dir():
        raise BadInput("not a folder", where=str(run_dir), fix="name the folder of a training run")
    if (run_dir / _HOLD).exists():
        raise Refused(
            "the run is held",
            where=str(run_dir / _HOLD),
            fix="it says why and what to try; judge again with loso validate",
        )
    path = run_dir / _PROMOTE
    if not path.is_file():
        raise _refusal("no verdict to promote", path, run_dir)
    promote = read_promote(path)
    of_intervals = _check_hashes(run_dir, promote)
    if corpus.sha256 != promote.evidence.corpus_sha256:
        raise Refused(
            "not the corpus that the verdict speaks of",
            where=str(corpus.path),
            expected=f"sha256 {promote.evidence.corpus_sha256}",
            found=corpus.sha256,
            fix="name that corpus, or train and judge on this one",
        )
    evidence = collect_evidence(run_dir, promote.seeds)
    predictions = read_predictions(evidence)
    check_against_corpus(evidence, predictions, corpus)
    _check_numbers(path, promote, evidence)
    intervals = None
    if of_intervals is not None:
        intervals = _parse_intervals(of_intervals, run_dir, promote, evidence)
        check_rules(intervals, evidence, predictions, corpus)
    return Grounds(promote, evidence, intervals)


def _refusal(problem: str, where: Path, run_dir: Path) -> Refused:
    return Refused(
        problem,
        where=str(where),
        fix=f"judge the run as it stands: loso validate {run_dir} --corpus CORPUS",
    )


def _check_hashes(run_dir: Path, promote: Promote) -> bytes | None:
    """Refuse a run whose files are not those that the verdict judged, naming the first.

    Return the content of its intervals, which is what was held against the verdict.
    """
    judged, seeds = promote.evidence, set(promote.seeds)
    for what, hashes in (("seed files", judged.seeds), ("predictions", judged.predictions)):
        if set(hashes) != seeds:
            raise _refusal(
                f"the verdict does not name the {what} of all its seeds", run_dir, run_dir
            )
    found = {
        seed: sha256_of(path) if (path := run_dir / seed_file_name(seed)).is_file() else None
        for seed in promote.seeds
    }
    others = [seed for seed in promote.seeds if found[seed] != judged.seeds[seed]]
    if len(others) == len(seeds) > 1:
        raise _refusal("the verdict is that of another run", run_dir / _PROMOTE, run_dir)
    for seed in others:
        problem = "not the seed file that the verdict judged" if found[seed] else "missing"
        raise _refusal(problem, run_dir / seed_file_name(seed), run_dir)
    for seed in promote.seeds:
        path = run_dir / predictions_file_name(seed)
        if not path.is_file() or sha256_of(path) != judged.predictions[seed]:
            raise _refusal("not the predictions that the verdict judged", path, run_dir)
    path = run_dir / INTERVALS_FILE
    intervals = read_file(path) if path.is_file() else None
    found_sha256 = None if intervals is None else hashlib.sha256(intervals).hexdigest()
    if found_sha256 != judged.intervals_sha256:
        raise _refusal("not the intervals that stood there when the run was judged", path, run_dir)
    return intervals


def _check_numbers(path: Path, promote: Promote, evidence: Evidence) -> None:
    gate = promote.gate
    report = evaluate_gate(
        evidence,
        GateThresholds(
            mean_plcc_threshold=gate.mean_plcc_threshold,
            plcc_spread_max=gate.plcc_spread_max,
            per_seed_min=gate.per_seed_min,
        ),
        gate.gain_over_vmaf,
    )
    target = recipe_of(next(iter(evidence.seed_files.values()))).target
    if lacks_gain(gate, target):
        problem = f"gate.gain_over_vmaf does not say that a model of {target} beats VMAF"
        raise _refusal(problem, path, path.parent)
    if not report.passed:
        raise _refusal("the run does not pass the verdict's own limits", path, path.parent)
    for name in _GATE_NUMBERS:
        if differ(getattr(gate, name), getattr(report, name)):
            raise _refusal(f"{name} is not what the seed files give", path, path.parent)
    if set(gate.per_seed_plccs) != set(report.per_seed_plccs) or any(
        differ(plcc, report.per_seed_plccs[seed]) for seed, plcc in gate.per_seed_plccs.items()
    ):
        raise _refusal("per_seed_plccs are not what the seed files give", path, path.parent)


def _parse_intervals(
    content: bytes, run_dir: Path, promote: Promote, evidence: Evidence
) -> IntervalsFile:
    path = run_dir / INTERVALS_FILE
    intervals = parse_intervals(content, path)
    if not intervals.speaks_of(promote.evidence.corpus_sha256, promote.evidence.predictions):
        raise Refused(
            "the intervals are of other predictions",
            where=str(path),
            fix=f"calibrate again with loso calibrate {run_dir}, then loso validate {run_dir}",
        )
    unit = recipe_of(next(iter(evidence.seed_files.values()))).unit
    if intervals.unit != unit:
        raise Refused(
            "the intervals are of another unit than the run",
            where=str(path),
            expected=f"a pool {unit}",
            found=", ".join(intervals.by_pool),
            fix=f"calibrate again with loso calibrate {run_dir}, then loso validate {run_dir}",
        )
    return intervals
