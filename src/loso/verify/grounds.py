"""On what grounds members are for production: the registry, the promotion, the verdict's numbers.

A verdict may be any file with that name, edited or of another maker, so it is held against its own
arithmetic before anything is held against it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from loso.errors import BadInput
from loso.evidence import differ
from loso.model.files import (
    REGISTRY_FILE,
    Promotion,
    RegistryEntry,
    Sidecar,
    is_member_of,
    promotion_name,
)
from loso.model.grounds import GATE_KEYS, OF_THE_SEED, VerdictFile, lacks_gain, loose_limits
from loso.recipe import GateThresholds
from loso.run_folder import VERDICT_FILES
from loso.verify.folder import Findings, Folder, parse, validated
from loso.verify.model import Model

__all__ = ["check_grounds", "check_registry", "check_verdict"]

_MOST: Final = 1e9
"""Far beyond any correlation or limit of one."""

_SLACK: Final = GateThresholds.tolerance


# -- The registry ---------------------------------------------------------------------------------


def check_registry(folder: Folder, models: Sequence[Model], findings: Findings) -> dict[str, bool]:
    """Hold the registry against the files; return for each model whether it is for production."""
    entries = _read_entries(folder, findings)
    for entry in entries:
        _check_entry(folder, entry, findings)
    return {model.stem: _check_members(model, entries, findings) for model in models}


def _read_entries(folder: Folder, findings: Findings) -> list[dict[str, Any]]:
    if REGISTRY_FILE not in folder.files:
        findings.add(REGISTRY_FILE, "registry", "missing")
        return []
    try:
        content = folder.json(REGISTRY_FILE)
    except BadInput as error:
        findings.refused(REGISTRY_FILE, "registry", error)
        return []
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, list):
        findings.add(REGISTRY_FILE, "registry", "not a registry", "an object with a list models")
        return []
    findings.same(
        REGISTRY_FILE, "registry", "schema_version", 1, content.get("schema_version", "none")
    )
    entries = [entry for entry in models if isinstance(entry, dict)]
    if len(entries) < len(models):
        findings.add(REGISTRY_FILE, "registry", "an entry that is no object")
    return entries


def _check_entry(folder: Folder, entry: Mapping[str, Any], findings: Findings) -> None:
    """Hold one entry, whosever it is, against the file that it names."""
    name, onnx, expected = (str(entry.get(key, "")) for key in ("id", "onnx", "sha256"))
    if onnx not in folder.files:
        findings.add(REGISTRY_FILE, "registry", f"{name} names no file of the folder", "", onnx)
        return
    try:
        found = folder.sha256(onnx)
    except BadInput as error:
        findings.refused(onnx, "registry", error)
        return
    if found != expected:
        problem = f"sha256 of {name} is not that of {onnx}"
        findings.add(REGISTRY_FILE, "registry", problem, found, expected or "none")


def _check_members(model: Model, entries: Sequence[Mapping[str, Any]], findings: Findings) -> bool:
    """Hold the entries of a model's members against them; return whether any is for production."""
    listed = {member.id: member for member in model.members}
    smoke: dict[str, bool] = {}
    for entry in entries:
        name = str(entry.get("id"))
        if name not in listed:
            if is_member_of(model.stem, name):
                findings.add(REGISTRY_FILE, "registry", f"{name} is no member of {model.stem}")
            continue
        record = validated(entry, RegistryEntry, REGISTRY_FILE, findings, "registry")
        if record is None:
            continue
        member, smoke[name] = listed[name], record.smoke
        if "smoke" not in entry:
            findings.add(REGISTRY_FILE, "smoke", f"{name} does not say whether it is on trial")
        findings.same(REGISTRY_FILE, "registry", f"onnx of {name}", member.onnx, record.onnx)
        if member.graph is not None:
            opset = member.graph.opset
            findings.same(REGISTRY_FILE, "registry", f"opset of {name}", opset, record.opset)
    times = Counter(str(entry.get("id")) for entry in entries)
    for name in listed:
        if times[name] != 1:
            problem = f"{name} does not stand there once"
            findings.add(REGISTRY_FILE, "registry", problem, "1 entry", times[name])
    return _check_smoke(model, smoke, findings)


def _check_smoke(model: Model, smoke: Mapping[str, bool], findings: Findings) -> bool:
    """Hold the flags of members and manifest against each other."""
    if len(set(smoke.values())) > 1:
        trial = ", ".join(name for name, flag in smoke.items() if flag)
        problem = "some members are for production and some are not"
        findings.add(REGISTRY_FILE, "smoke", problem, "one flag for all", f"smoke: {trial}")
    elif model.manifest is not None and smoke:
        (of_members,) = set(smoke.values())
        if model.manifest.smoke != of_members:
            problem = f"smoke is not that of the members in {REGISTRY_FILE}"
            findings.add(model.file, "smoke", problem, of_members, model.manifest.smoke)
    of_manifest = model.manifest is not None and not model.manifest.smoke
    return of_manifest or not all(smoke.values())


# -- Promotion and verdict ------------------------------------------------------------------------


def check_grounds(folder: Folder, model: Model, findings: Findings, *, production: bool) -> None:
    """Hold the promotion and the verdicts in the folder against the members and their records."""
    _check_promotion(folder, model, findings, production=production)
    _check_gates(model, findings)
    for name in folder.files:
        if "/" not in name and name.startswith(model.stem) and name.endswith(VERDICT_FILES):
            try:
                content = folder.read(name)
            except BadInput as error:
                findings.refused(name, "verdict", error)
                continue
            check_verdict(name, content, model, findings)


def _check_promotion(folder: Folder, model: Model, findings: Findings, *, production: bool) -> None:
    name = promotion_name(model.stem)
    if name not in folder.files:
        if production:
            findings.add(name, "promotion", "missing, though members are for production")
        return
    record = folder.record(name, Promotion, findings, "promotion")
    if record is None:
        return

    def same(what: str, expected: object, found: object) -> None:
        findings.same(name, "promotion", what, expected, found)

    same("state", "promoted" if production else "withdrawn", record.state)
    same("id", model.stem, record.id)
    for member in model.members:
        if member.sha256 is not None:
            found = record.members.get(member.id, "none")
            same(f"sha256 of {member.id}", member.sha256, found)
    same("list of members", sorted(member.id for member in model.members), sorted(record.members))
    if model.manifest is not None:
        same("verdict_sha256", model.manifest.verdict_sha256, record.verdict_sha256)
        same("corpus_sha256", model.manifest.corpus_sha256, record.corpus_sha256)
    if record.state == "promoted":
        _check_evidence(name, record, model, findings)
        _check_limits(name, record, model, findings)


def _check_evidence(name: str, record: Promotion, model: Model, findings: Findings) -> None:
    """Hold the evidence that a promotion names against that in the members' records."""
    if record.corpus_sha256 is None or record.evidence.get("corpus_sha256") is None:
        findings.add(name, "promotion", "names no corpus that was judged", "evidence.corpus_sha256")
    for file, sidecar in model.sidecars.items():
        if sidecar.evidence != record.evidence:
            problem = f"evidence is not that in {file}"
            findings.add(name, "promotion", problem, sidecar.evidence, record.evidence)


def _check_limits(name: str, record: Promotion, model: Model, findings: Findings) -> None:
    """Find limits that let more through than the standard ones and that no flip accepted."""
    for sidecar in model.sidecars.values():
        limits = {ours: sidecar.gate.get(theirs) for ours, theirs in GATE_KEYS.items()}
        if not all(map(_is_number, limits.values())):
            return  # found where the gate is read
        loose = loose_limits(limits)
        if loose != record.accepted_limits:
            problem = "limits looser than the standard ones were not accepted so"
            findings.add(name, "promotion", problem, loose, record.accepted_limits)


def _check_gates(model: Model, findings: Findings) -> None:
    """Hold the gate's numbers in the sidecars against the scores of the seeds in them."""
    plccs = {}
    for file, sidecar in model.sidecars.items():
        gate = sidecar.gate
        findings.same(file, "verdict", "gate.verdict", "PROMOTE", gate.get("verdict", "none"))
        findings.same(
            file, "verdict", "loso_mean_plcc", gate.get("mean_plcc"), sidecar.loso_mean_plcc
        )
        if sidecar.evidence is None or sidecar.evidence.get("corpus_sha256") is None:
            findings.add(file, "verdict", "its verdict names no corpus that was judged", "evidence")
        numbers = [gate.get(key) for key in (*GATE_KEYS.values(), OF_THE_SEED)]
        if not all(map(_is_number, numbers)):
            findings.add(file, "verdict", "gate lacks numbers", [*GATE_KEYS.values()], gate)
        else:
            plccs[file] = gate[OF_THE_SEED]
    if len(plccs) == len(model.members):
        for file, sidecar in model.sidecars.items():
            limits = {ours: sidecar.gate[theirs] for ours, theirs in GATE_KEYS.items()}
            _check_arithmetic(file, limits, plccs.values(), findings)


def _is_number(value: Any) -> bool:
    """Tell whether a value of JSON is one that can be reckoned with: an int may be of any size."""
    return isinstance(value, int | float) and -_MOST <= value <= _MOST


def _check_arithmetic(
    file: str, gate: Mapping[str, Any], plccs: Iterable[float], findings: Findings
) -> None:
    """Hold mean, spread and answer of a gate against the mean PLCC of each seed."""
    plccs = [*plccs]
    mean, spread = fmean(plccs), max(plccs) - min(plccs)
    gain = gate.get("gain_over_vmaf")  # which sidecars do not repeat
    for key, computed in (("mean_plcc", mean), ("plcc_spread", spread)):
        if differ(gate[key], computed):
            problem = f"gate.{key} is not what the seeds' scores give"
            findings.add(file, "verdict", problem, computed, gate[key])
    passed = (
        mean >= gate["mean_plcc_threshold"] - _SLACK
        and spread <= gate["plcc_spread_max"] + _SLACK
        and min(plccs) >= gate["per_seed_min"] - _SLACK
        and (gain is None or gain["beats"])
    )
    findings.same(file, "verdict", "gate.passed", passed, bool(gate["passed"]))
    for key, limit in loose_limits(gate).items():
        standard = getattr(GateThresholds, key)
        note = f"{key} was {limit:g}, the standard is {standard:g}"
        if note not in findings.notes:
            findings.notes.append(note)


def check_verdict(
    file: str, content: bytes, model: Model, findings: Findings
) -> VerdictFile | None:
    """Hold a verdict against its own numbers, and what the model's records say of it against it."""
    verdict = parse(content, VerdictFile, file, findings, "verdict")
    if verdict is None:
        return None
    gate, evidence = verdict.gate, verdict.evidence
    findings.same(file, "verdict", "verdict", "PROMOTE", verdict.verdict)
    if not verdict.corpus.get("present") and (evidence is None or evidence.corpus_sha256 is None):
        problem = f"{verdict.verdict} without evidence of a corpus: corpus.present is not true"
        findings.add(file, "verdict", problem, "evidence.corpus_sha256", "none")
    seeds = sorted(gate.per_seed_plccs)
    findings.same(file, "verdict", "list of seeds", seeds, sorted(verdict.seeds))
    if seeds:
        _check_arithmetic(file, gate.model_dump(), gate.per_seed_plccs.values(), findings)
    if model.manifest is not None:
        if lacks_gain(gate, model.manifest.target):
            problem = "gate.gain_over_vmaf does not say that the model beats VMAF"
            findings.add(file, "verdict", problem, "gain_over_vmaf.beats: true")
        of_model = sorted(entry.seed for entry in model.manifest.members)
        findings.same(model.file, "verdict", "list of seeds of the verdict", seeds, of_model)
    sha256 = hashlib.sha256(content).hexdigest()
    records: dict[str, str | None] = {k: s.verdict_sha256 for k, s in model.sidecars.items()}
    if model.manifest is not None:
        records[model.file] = model.manifest.verdict_sha256
    for name, named in records.items():
        if named is not None and named != sha256:
            findings.add(name, "verdict", f"names another verdict than {file}", sha256, named)
    for name, sidecar in model.sidecars.items():
        _check_sidecar(name, sidecar, verdict, findings)
    return verdict


def _check_sidecar(name: str, sidecar: Sidecar, verdict: VerdictFile, findings: Findings) -> None:
    expected = verdict.gate.of_seed(sidecar.seed)
    for key, value in expected.items():
        if sidecar.gate.get(key) != value:
            problem = f"gate.{key} is not the verdict's"
            findings.add(name, "verdict", problem, value, sidecar.gate.get(key))
    evidence = verdict.evidence
    if evidence is not None:
        judged = evidence.to_dict()
        if sidecar.evidence != judged:
            problem = "evidence is not the verdict's"
            findings.add(name, "verdict", problem, judged, sidecar.evidence)
        if sidecar.corpus.sha256 != evidence.corpus_sha256:
            problem = "corpus.sha256 is not that of the corpus that was judged"
            findings.add(name, "verdict", problem, evidence.corpus_sha256, sidecar.corpus.sha256)
