"""A model held against what it was made from: the run that was judged, and the corpus.

Paths outside the model folder come from the user, who says which run and which corpus to trust.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from loso.corpus.load import Corpus, load_corpus
from loso.corpus.view import view
from loso.errors import BadCorpus, BadEvidence, BadInput, BadSettings, LosoError
from loso.evidence import Evidence, collect_evidence, differ
from loso.export import files_of
from loso.files import read_file, sha256_of
from loso.gate import evaluate_gate
from loso.inputs import Scaler, build_inputs
from loso.model.files import MODEL_CARD, REGISTRY_FILE, member_stem
from loso.model.final_fit import FinalFit, fit_final, make_graphs
from loso.model.grounds import Grounds, VerdictFile, find_grounds
from loso.model.onnx_build import member_graph
from loso.model.records import Model as Made
from loso.model.records import registry_entry_of
from loso.progress import Progress, silent
from loso.recheck import check_against_corpus, read_predictions
from loso.recipe import Compute, GateThresholds
from loso.run_folder import BASELINES_FILE, INTERVALS_FILE, VERDICT_FILES
from loso.seedfile import predictions_file_name, recipe_of, seed_file_name
from loso.verify.folder import Findings, Folder
from loso.verify.graphs import read_network
from loso.verify.grounds import check_verdict
from loso.verify.model import Model

__all__ = ["Run", "check_corpus", "check_records", "check_run", "open_corpus"]

_PROMOTE, _HOLD = VERDICT_FILES
_SAME_SUM: Final = 1e-9
"""Means and deviations of a column, summed in another order by another build of numpy."""

_REFIT_SHARE: Final = 1e-5
"""Of the largest score: how far a graph may lie from its weights when it is exported."""

_ENGINE: Final = re.compile(r"(native|batched|reference)(:cuda)?")

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
        verdict = check_verdict(str(path), read_file(path), model, findings)
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
    return evidence, predictions


def _check_hashes(run_dir: Path, verdict: VerdictFile, findings: Findings) -> None:
    """Hold every file of the run against the sha256 that the verdict names for it."""
    judged = verdict.evidence
    if judged is None:
        return
    expected: dict[str, str | None] = {
        INTERVALS_FILE: judged.intervals_sha256,
        BASELINES_FILE: judged.baselines_sha256,
    }
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
        report = evaluate_gate(evidence, limits, gate.gain_over_vmaf)
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


# -- What export would write ----------------------------------------------------------------------


def check_records(
    folder: Folder,
    model: Model,
    run_dir: Path,
    corpus: Corpus,
    findings: Findings,
    *,
    refit: bool = False,
    progress: Progress = silent,
) -> None:
    """Hold every key of a model's records, and its card, against what export would write.

    That follows from the run, the corpus and the members' weights, which with `refit` are trained
    again. Flags of production apart: they follow from the registry.
    """
    if model.manifest is None:
        return
    try:
        grounds = find_grounds(run_dir, corpus)
        fit = _fit_of(model, grounds, corpus)
        made = Made(model.stem, corpus, grounds, fit, make_graphs(fit, grounds.intervals))
        card = _card_of(folder, model.stem)
        files, _ = files_of(made, card)
    except LosoError as error:
        findings.refused(error.where or str(run_dir), "run", error)
        return
    for name, content in files.items():
        _check_file(folder, name, content, findings)
    for seed in fit.networks:
        entry = registry_entry_of(made, seed).model_dump(mode="json")
        _check_entry(folder, entry, findings)
    if refit:
        _check_weights(made, findings, progress)
    else:
        findings.notes.append(f"{model.file}: weights were not trained again (--refit does)")


def _fit_of(model: Model, grounds: Grounds, corpus: Corpus) -> FinalFit:
    """Return the final fit that has the members' weights; its engine is the one that they name."""
    record = next(iter(grounds.evidence.seed_files.values()))
    recipe = recipe_of(record)
    rows = view(corpus, recipe, record.excluded_sources)
    inputs = build_inputs(rows, recipe)
    engines = [sidecar.training_recipe.get("engine") for sidecar in model.sidecars.values()]
    engine = next((one for one in engines if _ENGINE.fullmatch(str(one))), "none")
    graphs = {m.entry.seed: m for m in model.members if m.entry}
    networks = {}
    for seed in grounds.promote.seeds:
        member = graphs.get(seed)
        if member is not None and member.graph is not None and member.sha256 is not None:
            network = read_network(member.graph, member.sha256, recipe)
            if network is not None:
                networks[seed] = network
        if seed not in networks:
            raise BadInput(
                f"no member of seed {seed} with a graph that loso writes for the run's recipe",
                where=model.file,
            )
    return FinalFit(
        recipe=recipe,
        engine=str(engine),
        rows=rows.rows,
        inputs=inputs,
        scaler=Scaler.fit(inputs.matrix, inputs.scaled),
        networks=networks,
    )


def _card_of(folder: Folder, stem: str) -> str:
    """Return the name of a model's card: with the stem where that file is there."""
    own = f"{stem}.{MODEL_CARD}"
    return own if own in folder.files else MODEL_CARD


def _check_file(folder: Folder, name: str, expected: bytes, findings: Findings) -> None:
    if name not in folder.files:
        findings.add(name, "records", "missing")
        return
    try:
        if name.endswith(".json"):
            ours, theirs = json.loads(expected), folder.json(name)
            _compare(name, {**ours, "smoke": ...}, {**theirs, "smoke": ...}, findings)
        elif hashlib.sha256(expected).hexdigest() != folder.sha256(name):
            findings.add(name, "records", "not what export would write")
    except BadInput as error:
        findings.refused(name, "records", error)


def _check_entry(folder: Folder, expected: dict[str, Any], findings: Findings) -> None:
    try:
        content = folder.json(REGISTRY_FILE)
    except (BadInput, KeyError):
        return  # found where the registry was read
    models = content.get("models") if isinstance(content, dict) else None
    for entry in models if isinstance(models, list) else ():
        if isinstance(entry, dict) and entry.get("id") == expected["id"]:
            ours, theirs = ({**one, "smoke": ...} for one in (expected, entry))
            _compare(REGISTRY_FILE, ours, theirs, findings, expected["id"])


def _compare(file: str, ours: Any, theirs: Any, findings: Findings, key: str = "") -> None:
    """Add a finding for each key under which two JSON values differ, or that one of them lacks."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            a, b = (one.get(name, "no such key") for one in (ours, theirs))
            _compare(file, a, b, findings, f"{key}.{name}" if key else name)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            _compare(file, a, b, findings, f"{key}.{i}")
    elif not _same(ours, theirs):
        findings.add(file, "records", f"{key} is not what export would write", ours, theirs)


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and type(theirs) in {int, float}:
        return math.isclose(ours, theirs, rel_tol=_SAME_SUM, abs_tol=_SAME_SUM)
    return type(ours) is type(theirs) and bool(ours == theirs)


def _check_weights(made: Made, findings: Findings, progress: Progress) -> None:
    """Train the members once more, with their engine, and hold their weights against it.

    The same engine gives the same bytes on the same kind of machine; on another the scores of all
    training rows must agree.
    """
    fit = made.fit
    engine, _, device = fit.engine.partition(":")
    again = fit_final(
        made.corpus,
        fit.recipe,
        made.grounds.promote.seeds,
        exclude_sources=made.grounds.evidence.excluded_sources,
        compute=Compute(engine=engine, device=device or "cpu"),
        progress=progress,
    )
    width = fit.n_features
    found, expected = (one.predict(fit.inputs.matrix) for one in (fit, again))
    limit = _REFIT_SHARE * float(max(np.abs(expected).max(), fit.inputs.target.std()))
    for i, seed in enumerate(fit.networks):
        graphs = {member_graph(one.networks[seed], n_features=width) for one in (fit, again)}
        largest = float(np.abs(found[i] - expected[i]).max())
        if len(graphs) == 1:
            continue
        if largest <= limit:
            text = f"weights of seed {seed} differ in bytes; their scores by {largest:.2g} at most"
            findings.notes.append(text)
        else:
            name = f"{member_stem(made.stem, seed)}.onnx"
            problem = f"weights of seed {seed} are not what training gives: their scores differ"
            findings.add(name, "refit", problem, f"at most {limit:g}", f"{largest:g}")
