"""PROMOTE or HOLD: the gate's answer, bound to the exact bytes it was given for."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from loso.baselines import Gain, paired_gain, parse_baselines
from loso.calibration import check_rules
from loso.corpus.load import Corpus, load_corpus
from loso.corpus.view import view
from loso.diagnosis import (
    advise_on_baselines,
    advise_on_predictions,
    advise_on_sources,
    diagnose,
)
from loso.errors import BadEvidence, BadInput
from loso.evidence import Evidence, collect_evidence
from loso.files import remove_file, sha256_of, to_json, write_atomic
from loso.gate import Advice, GateReport, evaluate_gate
from loso.intervals import IntervalsFile, level_key, parse_intervals
from loso.locks import folder_lock
from loso.made import read_made
from loso.recheck import check_against_corpus, read_predictions
from loso.recipe import DEFAULT_SEEDS, GateThresholds, is_mapped
from loso.run_folder import BASELINES_FILE, INTERVALS_FILE, VERDICT_FILES
from loso.seedfile import predictions_file_name, recipe_of, seed_file_name

__all__ = ["Verdict", "snapshot_corpus", "validate_run"]

_SCHEMA_VERSION: Final = 1
_DECISIONS: Final = {"adr": "ADR-0309", "parent_adr": "ADR-0303"}
"""The decisions behind this gate, under the names that readers of verdicts look for."""

_NO_CORPUS: Final = "no corpus file: that the predictions are of its rows is taken on trust"


@dataclass(frozen=True)
class Verdict:
    """An answer, what it rests on and what follows; `to_dict` is what its file holds.

    `corpus` is `snapshot_corpus` of the source clips, `evidence` holds the hashes of all that was
    judged, what was taken on trust and what was not judged, `diagnosis` comes from
    `loso.diagnosis.diagnose`. `warnings` says what of it a person should know.
    """

    verdict: Literal["PROMOTE", "HOLD"]
    generated_at_utc: str
    loso_dir: str
    seeds: tuple[int, ...]
    gate: GateReport
    corpus: Mapping[str, Any]
    evidence: Mapping[str, Any]
    diagnosis: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def recommendation(self) -> str:
        """What to do with the seeds now, in one sentence."""
        if self.verdict == "PROMOTE":
            return "flip seeds smoke->false in the model registry, as a deliberate step of its own"
        return (
            "leave the seeds at smoke: true and investigate diversity, of the sources and of the "
            f"seeds: {'; '.join(self.diagnosis['failed'])}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as a JSON object."""
        return {
            "schema_version": _SCHEMA_VERSION,
            "verdict": self.verdict,
            "generated_at_utc": self.generated_at_utc,
            "loso_dir": self.loso_dir,
            "seeds": list(self.seeds),
            "gate": self.gate.to_dict(),
            "corpus": dict(self.corpus),
            "recommendation": self.recommendation,
            "diagnosis": dict(self.diagnosis),
            "evidence": dict(self.evidence),
            **_DECISIONS,
        }


def _utc_now() -> datetime:
    return datetime.now(UTC)


def validate_run(
    loso_dir: Path,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    thresholds: GateThresholds | None = None,
    *,
    corpus_root: Path | None = None,
    corpus: Path | Corpus | None = None,
    allow_thin: bool = False,
    now: Callable[[], datetime] = _utc_now,
) -> tuple[Verdict, Path]:
    """Return the verdict on a run, and the file in `loso_dir` that holds it from now on.

    Every score is computed again from the out-of-fold predictions, and with `corpus`, a file or
    what `load_corpus` made of it, every prediction is held against its row there. BadEvidence,
    with nothing written, where the run cannot be judged, where a score is not borne out, where
    `corpus` is not what the seeds were trained on, or where intervals or baselines in the folder
    are not made from these predictions. Another target than VMAF needs `corpus`: such a model
    must beat the VMAF column there. Busy where another process works in the folder.
    Exactly one of PROMOTE.json and HOLD.json stands afterwards; never both.
    """
    evidence = collect_evidence(loso_dir, seeds, allow_thin=allow_thin)
    if isinstance(corpus, Path):
        corpus = load_corpus(corpus)
    predictions = read_predictions(evidence)
    if corpus is not None:
        check_against_corpus(evidence, predictions, corpus)
    elif predictions:
        evidence = replace(evidence, taken_on_trust=(*evidence.taken_on_trust, _NO_CORPUS))
    gain_over_vmaf = _gain_over_vmaf(evidence, predictions, corpus)
    report = evaluate_gate(evidence, thresholds or GateThresholds(), gain_over_vmaf)
    intervals, intervals_sha256 = read_made(evidence, INTERVALS_FILE, parse_intervals)
    if intervals is not None and corpus is not None:
        check_rules(intervals, evidence, predictions, corpus)
    baselines, baselines_sha256 = read_made(evidence, BASELINES_FILE, parse_baselines)
    advice = (
        *advise_on_sources(evidence),
        *advise_on_predictions(predictions),
        *advise_on_baselines(baselines),
        *_advise_on_intervals(intervals),
    )
    report = replace(report, advisory=(*report.advisory, *advice))
    verdict = Verdict(
        verdict="PROMOTE" if report.passed else "HOLD",
        generated_at_utc=now().astimezone(UTC).isoformat(timespec="seconds"),
        loso_dir=str(loso_dir),
        seeds=tuple(evidence.seed_files),
        gate=report,
        corpus=snapshot_corpus(corpus_root),
        evidence=_hashes(evidence, intervals_sha256, baselines_sha256),
        diagnosis=diagnose(evidence, report),
        warnings=evidence.warnings,
    )
    return verdict, _write(verdict, evidence)


def _gain_over_vmaf(
    evidence: Evidence, predictions: Mapping[int, pl.DataFrame], corpus: Corpus | None
) -> Gain | None:
    """Return how much closer to another target than VMAF the ensemble is than the VMAF column.

    None where VMAF is the target; BadEvidence where the corpus that holds the column is not given.
    """
    recipe = recipe_of(next(iter(evidence.seed_files.values())))
    if not is_mapped(recipe.target):
        return None
    if corpus is None:
        words = ["loso", "validate", str(evidence.loso_dir), "--corpus", "CORPUS", "--seeds"]
        raise BadEvidence(
            f"a model of {recipe.target} must beat its VMAF baseline, which the corpus holds",
            where=str(evidence.loso_dir),
            expected="the corpus that the seeds were trained on",
            fix=f"judge with {shlex.join([*words, ','.join(map(str, evidence.seed_files))])}",
        )
    rows = view(corpus, recipe, evidence.excluded_sources).rows
    tables = list(predictions.values())
    return paired_gain(
        recipe.target,
        tables[0]["y_true"].to_numpy(),
        np.mean([table["y_pred"].to_numpy() for table in tables], axis=0),
        rows["vmaf"].to_numpy(),
        rows["src"].to_numpy(),
    )


def _advise_on_intervals(intervals: IntervalsFile | None) -> tuple[Advice, ...]:
    """Return measured coverage of rows: at the default level, or the highest that was judged."""
    if intervals is None:
        return ()
    of_rows = intervals.coverage.by_pool[intervals.unit]
    measured = of_rows.hierarchical
    key = level_key(intervals.default_level)
    key = key if key in measured else max(measured, key=float)
    found, gaussian = measured[key], of_rows.gaussian[key]
    sources = f"{len(found.by_source)} of {intervals.n_calibration_sources} sources"
    return (
        Advice(
            "coverage_mean",
            found.mean,
            f"measured coverage of {intervals.unit}s by intervals of level {key}, over {sources}; "
            f"mu +- z sigma covers {gaussian.mean:.4g}",
        ),
        Advice("coverage_worst", found.worst, f"held-out source {found.worst_source}"),
    )


def snapshot_corpus(corpus_root: Path | None) -> dict[str, Any]:
    """Return what names a folder of source clips: the hash of its .yuv files' paths and sizes.

    Contents are not read: tens of gigabytes would dominate the run. `ref_count` and `dis_count`
    go by the folders `ref` and `dis`, or those letters in a file's stem. A folder that is not there
    has `present` False and no hash.
    """
    counts = {"ref_count": 0, "dis_count": 0, "yuv_count": 0}
    if corpus_root is None:
        return {"present": False, "corpus_root": None, "sha256": None, **counts}
    listing = hashlib.sha256()
    try:
        if not corpus_root.is_dir():
            return {"present": False, "corpus_root": str(corpus_root), "sha256": None, **counts}
        for path in sorted(corpus_root.rglob("*.yuv")):
            if not path.is_file():
                continue
            name = path.relative_to(corpus_root).as_posix()
            listing.update(os.fsencode(f"{name}\t{path.stat().st_size}\n"))
            for kind in ("ref", "dis"):
                counts[f"{kind}_count"] += f"/{kind}/" in f"/{name}/" or kind in path.stem.lower()
            counts["yuv_count"] += 1
    except OSError as error:
        raise BadInput(f"cannot be listed ({error.strerror})", where=str(corpus_root)) from None
    return {
        "present": True,
        "corpus_root": str(corpus_root),
        "sha256": listing.hexdigest(),
        **counts,
    }


def _hashes(
    evidence: Evidence, intervals_sha256: str | None, baselines_sha256: str | None
) -> dict[str, Any]:
    of_baselines = {} if baselines_sha256 is None else {"baselines_sha256": baselines_sha256}
    return {
        **of_baselines,
        "corpus_sha256": next(iter(evidence.seed_files.values())).corpus_sha256,
        "seeds": {str(seed): sha256 for seed, sha256 in evidence.seed_sha256.items()},
        "predictions": {str(seed): sha256 for seed, sha256 in evidence.predictions_sha256.items()},
        "intervals_sha256": intervals_sha256,
        "excluded_sources": list(evidence.excluded_sources),
        "taken_on_trust": list(evidence.taken_on_trust),
        "not_judged": list(evidence.not_judged),
    }


def _write(verdict: Verdict, evidence: Evidence) -> Path:
    folder = evidence.loso_dir
    path = folder / f"{verdict.verdict}.json"
    others = [folder / name for name in VERDICT_FILES if name != path.name]
    content = to_json(verdict.to_dict())
    with folder_lock(folder, "judging"):
        # Judged before the lock, so that a refusal leaves no trace: look again now.
        _refuse_changes(evidence, verdict.evidence)
        if path.is_dir():
            raise BadInput("a folder, not a verdict", where=str(path), fix="remove it")
        with write_atomic(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
            # Whole, but not yet in its place: a failure up to here leaves the old verdict, a kill
            # right after it none, and nothing leaves two.
            for other in others:
                remove_file(other)
    return path


def _refuse_changes(evidence: Evidence, hashes: Mapping[str, Any]) -> None:
    judged: dict[str, str | None] = {
        INTERVALS_FILE: hashes["intervals_sha256"],
        BASELINES_FILE: hashes.get("baselines_sha256"),
    }
    judged |= {seed_file_name(seed): sha256 for seed, sha256 in evidence.seed_sha256.items()}
    for seed, sha256 in evidence.predictions_sha256.items():
        judged[predictions_file_name(seed)] = sha256
    for name, expected in judged.items():
        path = evidence.loso_dir / name
        if (sha256_of(path) if path.is_file() else None) != expected:
            raise BadEvidence(
                "changed while it was judged",
                where=str(path),
                fix="wait until training has ended, then validate again",
            )
