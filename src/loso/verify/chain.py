"""A model held against what it was made from: the run that was judged, and the corpus.

Paths outside the model folder come from the user, who says which run and which corpus to trust.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from loso.corpus.load import Corpus, load_corpus
from loso.corpus.view import view
from loso.errors import BadCorpus, BadEvidence, BadInput, BadSettings
from loso.evidence import Evidence, collect_evidence, differ
from loso.files import sha256_of
from loso.gate import evaluate_gate
from loso.inputs import Inputs, Scaler, build_inputs
from loso.intervals import IntervalsFile, parse_intervals
from loso.model.files import Manifest
from loso.recheck import check_against_corpus, read_predictions
from loso.recipe import GateThresholds, Recipe
from loso.run_folder import INTERVALS_FILE, VERDICT_FILES
from loso.schema import CODEC_BLOCK_COLUMNS
from loso.seedfile import predictions_file_name, recipe_of, seed_file_name
from loso.verify.folder import Findings
from loso.verify.grounds import VerdictFile, check_verdict
from loso.verify.model import Model

__all__ = ["Run", "check_corpus", "check_run", "open_corpus"]

_PROMOTE, _HOLD = VERDICT_FILES
_RECIPE_KEYS: Final = (
    *("epochs", "batch_size", "lr", "weight_decay", "hidden", "depth", "dropout"),
    *("num_codecs", "target", "unit"),
)
_SAME_SUM: Final = 1e-9
"""Means and deviations of a column, summed in another order by another build of numpy."""

Run = tuple[Evidence, Mapping[int, pl.DataFrame]]
"""What a run proves, and its predictions by seed."""


# -- The run --------------------------------------------------------------------------------------


def check_run(run_dir: Path, model: Model, findings: Findings) -> Run | None:
    """Hold a model against the run that it was exported from; None where that proves nothing."""
    if not run_dir.is_dir():
        raise BadInput("not a folder", where=str(run_dir), fix="name the folder of a training run")
    if (run_dir / _HOLD).exists():
        findings.add(str(run_dir / _HOLD), "run", "the run is held")
    path = run_dir / _PROMOTE
    verdict = None
    if path.is_file():
        verdict = check_verdict(str(path), path.read_bytes(), model, findings)
    else:
        findings.add(str(path), "run", "missing: no verdict to promote")
    if verdict is not None:
        _check_hashes(run_dir, verdict, findings)
    seeds = sorted({m.entry.seed for m in model.members if m.entry is not None})
    try:
        evidence = collect_evidence(run_dir, sorted(verdict.seeds) if verdict else seeds)
        predictions = read_predictions(evidence)
    except (BadEvidence, BadInput) as error:
        findings.refused(error.where or str(run_dir), "run", error)
        return None
    if verdict is not None:
        _check_numbers(path, verdict, evidence, findings)
    _check_recipe(model, evidence, findings)
    _check_intervals(run_dir, model, evidence, findings)
    return evidence, predictions


def _check_hashes(run_dir: Path, verdict: VerdictFile, findings: Findings) -> None:
    """Hold every file of the run against the sha256 that the verdict names for it."""
    judged = verdict.evidence
    if judged is None:
        return
    expected: dict[str, str | None] = {INTERVALS_FILE: judged.intervals_sha256}
    for seed in sorted({*verdict.seeds, *judged.seeds, *judged.predictions}):
        expected[seed_file_name(seed)] = judged.seeds.get(seed)
        expected[predictions_file_name(seed)] = judged.predictions.get(seed)
    for name, named in expected.items():
        path = run_dir / name
        found = sha256_of(path) if path.is_file() else None
        if found != named:
            problem = "not the file that the verdict judged"
            findings.add(str(path), "run", problem, named or "none", found or "none")


def _check_numbers(
    path: Path, verdict: VerdictFile, evidence: Evidence, findings: Findings
) -> None:
    """Hold the verdict against the gate, computed again from the run."""
    gate = verdict.gate
    try:
        limits = GateThresholds(
            mean_plcc_threshold=gate.mean_plcc_threshold,
            plcc_spread_max=gate.plcc_spread_max,
            per_seed_min=gate.per_seed_min,
        )
        report = evaluate_gate(evidence, limits)
    except BadInput as error:
        findings.refused(str(path), "run", error)
        return
    findings.same(str(path), "run", "gate.passed", report.passed, gate.passed)
    numbers = {"mean_plcc": gate.mean_plcc, "plcc_spread": gate.plcc_spread}
    computed = {"mean_plcc": report.mean_plcc, "plcc_spread": report.plcc_spread}
    for seed, plcc in report.per_seed_plccs.items():
        computed[f"per_seed_plccs of seed {seed}"] = plcc
        numbers[f"per_seed_plccs of seed {seed}"] = gate.per_seed_plccs.get(seed, 0.0)
    for what, value in computed.items():
        if differ(numbers[what], value):
            problem = f"gate: {what} is not what the seed files give"
            findings.add(str(path), "run", problem, value, numbers[what])


def _check_recipe(model: Model, evidence: Evidence, findings: Findings) -> None:
    """Hold the members' recipe against that of the seeds that were judged."""
    record = next(iter(evidence.seed_files.values()))
    judged: dict[str, Any] = {key: getattr(record, key) for key in _RECIPE_KEYS}
    judged |= {"excluded_sources": list(evidence.excluded_sources)}
    for name, sidecar in model.sidecars.items():
        for key, value in judged.items():
            found = sidecar.training_recipe.get(key)
            if value is not None and found != value:
                problem = f"training_recipe.{key} is not that of the run"
                findings.add(name, "run", problem, value, found)
        standardised = sidecar.training_recipe.get("standardise_target", False)
        if standardised != record.standardise_target:
            problem = "training_recipe.standardise_target is not that of the run"
            findings.add(name, "run", problem, record.standardise_target, standardised)
        if sidecar.inputs != record.inputs:
            findings.add(
                name, "run", "inputs are not those of the run", record.inputs, sidecar.inputs
            )
        if record.corpus_sha256 != sidecar.corpus.sha256:
            problem = "corpus.sha256 is not that of the run"
            findings.add(name, "run", problem, record.corpus_sha256, sidecar.corpus.sha256)


def _check_intervals(run_dir: Path, model: Model, evidence: Evidence, findings: Findings) -> None:
    """Hold the manifest's intervals against the run's."""
    path, manifest = run_dir / INTERVALS_FILE, model.manifest
    if not path.is_file():
        if manifest is not None and manifest.confidence is not None:
            findings.add(str(path), "intervals", f"missing, and {model.file} has intervals")
        return
    try:
        intervals = parse_intervals(path.read_bytes(), path)
    except BadEvidence as error:
        findings.refused(str(path), "intervals", error)
        return
    corpus_sha256 = next(iter(evidence.seed_files.values())).corpus_sha256
    if not intervals.speaks_of(corpus_sha256, evidence.predictions_sha256):
        findings.add(str(path), "intervals", "not made from the predictions of this run")
    if manifest is not None:
        _check_confidence(model.file, manifest, intervals, findings)


def _check_confidence(
    file: str, manifest: Manifest, intervals: IntervalsFile, findings: Findings
) -> None:
    confidence = manifest.confidence
    if confidence is None:
        findings.add(file, "intervals", "no confidence, though the run has intervals")
        return
    measured = (confidence.measured_coverage or {}).get("by_pool", {})
    expected: dict[str, tuple[Any, Any]] = {
        "method": (intervals.method, confidence.method),
        "nominal_coverage": (intervals.default_level, confidence.nominal_coverage),
        "n_calibration_sources": (
            intervals.n_calibration_sources,
            confidence.n_calibration_sources,
        ),
        "target": (intervals.target, manifest.target),
        **{
            f"by_pool.{pool}": (rule, (confidence.by_pool or {}).get(pool))
            for pool, rule in intervals.by_pool.items()
        },
    }
    for pool, coverage in intervals.coverage.by_pool.items():
        for level, found in coverage.hierarchical.items():
            for key in ("mean", "worst", "worst_source", "mean_width"):
                what = f"measured_coverage.{pool}.{level}.{key}"
                expected[what] = getattr(found, key), _at(measured, pool, level, key)
    for what, (ours, theirs) in expected.items():
        if ours != theirs:
            problem = f"confidence: {what} is not that of {INTERVALS_FILE}"
            findings.add(file, "intervals", problem, ours, theirs)


def _at(content: Any, *keys: str) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


# -- The corpus -----------------------------------------------------------------------------------


def open_corpus(path: Path, key: Sequence[str], findings: Findings) -> Corpus | None:
    """Return a corpus; None, with a finding, where it cannot be used any more."""
    if not path.is_file():
        raise BadCorpus("file not found", where=str(path), fix="name the corpus of the run")
    try:
        return load_corpus(path, key=key)
    except BadCorpus as error:
        findings.refused(str(path), "corpus", error)
        return None


def check_corpus(corpus: Corpus, model: Model, run: Run | None, findings: Findings) -> None:
    """Hold a model, and the run that it was made from, against the corpus of both."""
    named = {name: sidecar.corpus.sha256 for name, sidecar in model.sidecars.items()}
    if model.manifest is not None:
        named[model.file] = model.manifest.corpus_sha256
    for name, sha256 in named.items():
        if sha256 != corpus.sha256:
            problem = f"names another corpus than {corpus.path}"
            findings.add(name, "corpus", problem, corpus.sha256, sha256 or "none")
    if run is not None:
        _check_folds(corpus, run, findings)
    _check_rows(corpus, model, run, findings)


def _check_rows(corpus: Corpus, model: Model, run: Run | None, findings: Findings) -> None:
    """Hold what the records say of the training rows against the rows."""
    try:
        recipe = _recipe(model, run)
        seen = view(corpus, recipe, _excluded(model, run))
        inputs = build_inputs(seen, recipe) if len(seen) else None
    except (BadCorpus, BadSettings) as error:
        findings.refused(str(corpus.path), "corpus", error)
        return
    if inputs is None:
        findings.add(str(corpus.path), "corpus", "no rows are left: every source is excluded")
        return
    for name, sidecar in model.sidecars.items():
        theirs = sidecar.corpus
        for key, computed, found in (
            ("n_rows", len(seen), theirs.n_rows),
            ("cq_min", inputs.cq_min, theirs.cq_min),
            ("cq_max", inputs.cq_max, theirs.cq_max),
        ):
            if found != computed:
                problem = f"corpus.{key} is not that of the corpus"
                findings.add(name, "corpus", problem, computed, found)
    if model.manifest is not None:
        _check_inputs(model.file, model.manifest, seen, inputs, findings)


def _recipe(model: Model, run: Run | None) -> Recipe:
    """Return what rows were looked at for, by the run or else by the manifest."""
    manifest = model.manifest
    if run is not None:
        return recipe_of(next(iter(run[0].seed_files.values())))
    if manifest is None:
        return Recipe()
    return Recipe(target=manifest.target, unit=manifest.unit, inputs=manifest.inputs)


def _excluded(model: Model, run: Run | None) -> tuple[str, ...]:
    """Return the sources that the model was not fitted on, by the run or else by its members."""
    if run is not None:
        return run[0].excluded_sources
    for sidecar in model.sidecars.values():
        found = sidecar.training_recipe.get("excluded_sources")
        if isinstance(found, list) and all(isinstance(name, str) for name in found):
            return tuple(found)
    return ()


def _check_folds(corpus: Corpus, run: Run, findings: Findings) -> None:
    """Hold every source out once in every seed, and every prediction against its row."""
    evidence, predictions = run
    try:
        recipe = recipe_of(next(iter(evidence.seed_files.values())))
        sources = {*view(corpus, recipe, evidence.excluded_sources).sources}
    except (BadCorpus, BadSettings) as error:
        findings.refused(str(corpus.path), "corpus", error)
        return
    for seed, file in evidence.seed_files.items():
        path = str(evidence.loso_dir / seed_file_name(seed))
        times = Counter(fold.held_out for fold in file.folds)
        for source in sorted(sources | times.keys()):
            expected = int(source in sources)
            if times[source] != expected:
                problem = f"times that source {source} is held out"
                findings.add(path, "corpus", problem, expected, times[source])
        if file.corpus_sha256 != corpus.sha256:
            problem = f"names another corpus than {corpus.path}"
            findings.add(path, "corpus", problem, corpus.sha256, file.corpus_sha256 or "none")
    try:
        if predictions:
            check_against_corpus(evidence, predictions, corpus)
    except BadEvidence as error:
        findings.refused(error.where, "corpus", error)


def _check_inputs(
    file: str, manifest: Manifest, seen: Corpus, inputs: Inputs, findings: Findings
) -> None:
    """Hold scaler, ranges and encoders of a manifest against the rows that members saw."""
    scaler, names = Scaler.fit(inputs.matrix, inputs.scaled), inputs.features
    findings.same(file, "corpus", "feature_order", names, manifest.feature_order)
    blocks = {"feature": slice(len(names))}
    blocks["condition"] = slice(len(names) + len(CODEC_BLOCK_COLUMNS), None)
    for kind, place in blocks.items():
        for key, fitted in ((f"{kind}_mean", scaler.mean), (f"{kind}_std", scaler.std)):
            found, computed = np.array(getattr(manifest, key)), fitted[place]
            fits = len(found) == len(computed)
            if not fits or not np.allclose(found, computed, rtol=_SAME_SUM, atol=0):
                problem = f"{key} is not that of the corpus"
                findings.add(file, "corpus", problem, computed.tolist(), found.tolist())
    ranges = {
        name: (float(inputs.matrix[:, i].min()), float(inputs.matrix[:, i].max()))
        for i, name in enumerate((*names, *inputs.block))
        if name not in CODEC_BLOCK_COLUMNS
    }
    seen_target = (float(inputs.target.min()), float(inputs.target.max()))
    for what, ours, theirs in (
        ("target_seen", seen_target, manifest.target_seen or seen_target),
        ("training_ranges", ranges, manifest.training_ranges),
        ("cq_min", inputs.cq_min, manifest.cq_min),
        ("cq_max", inputs.cq_max, manifest.cq_max),
        ("encoders_seen", seen.encoders, manifest.encoders_seen),
    ):
        if ours != theirs:
            findings.add(file, "corpus", f"{what} is not that of the corpus", ours, theirs)
