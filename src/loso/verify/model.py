"""What is wrong with a model itself: its manifest, its members, and how they fit each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from loso.engine.network import Network
from loso.errors import BadInput, BadSettings
from loso.inputs import block_names, feature_names
from loso.intervals import pools_of
from loso.model.files import (
    INPUT_NAMES,
    MEMBER_OUTPUTS,
    Manifest,
    MemberEntry,
    Sidecar,
    is_member_of,
    member_stem,
)
from loso.model.onnx_graph import GraphFile
from loso.recipe import Recipe
from loso.schema import (
    ENCODER_VOCAB,
    ENCODER_VOCAB_VERSION,
    VMAF_RANGE,
)
from loso.verify.folder import Findings, Folder
from loso.verify.graphs import check_ensemble, open_graph, read_network

__all__ = ["Member", "Model", "check_model", "find_stems"]

_INPUTS: Final = (
    *("feature_order", "feature_mean", "feature_std", "encoder_vocab", "codec_block_layout"),
    *("inputs", "unit", "condition_mean", "condition_std"),
)
_SHARED: Final = ("gate", "evidence", "training_recipe", "corpus", "verdict_sha256")
_OF_THE_SEED: Final = "this_seed_loso_plcc"


@dataclass(frozen=True)
class Member:
    """A member as far as it can be read: its names, its records, its checked graph and its hash.

    `network` holds its weights where the graph is the one that loso writes for its recipe.
    """

    id: str
    entry: MemberEntry | None
    sidecar: Sidecar | None
    graph: GraphFile | None
    sha256: str | None
    network: Network | None

    @property
    def onnx(self) -> str:
        """The name of its graph."""
        return f"{self.id}.onnx" if self.entry is None else self.entry.onnx

    @property
    def record(self) -> str:
        """The name of its sidecar."""
        return f"{self.id}.json"


@dataclass(frozen=True)
class Model:
    """An ensemble as far as it can be read; `content` is its manifest with all keys."""

    stem: str
    manifest: Manifest | None
    content: Mapping[str, Any]
    members: tuple[Member, ...]

    @property
    def file(self) -> str:
        """The name of the manifest."""
        return f"{self.stem}.json"

    @property
    def sidecars(self) -> dict[str, Sidecar]:
        """The sidecars that could be read, by the names of their files."""
        return {m.record: m.sidecar for m in self.members if m.sidecar is not None}


def find_stems(folder: Folder) -> tuple[str, ...]:
    """Return what the models of a folder are called: by their manifests, and by their members."""
    stems = set()
    for name in folder.files:
        stem, dot, suffix = name.rpartition(".")
        if "/" in name or not dot or suffix not in {"json", "onnx"}:
            continue
        ensemble, _, seed = stem.rpartition("_seed")
        if ensemble and is_member_of(ensemble, stem) and seed:
            stems.add(ensemble)
        elif suffix == "json" and _is_manifest(folder, name):
            stems.add(stem)
    return tuple(sorted(stems))


def _is_manifest(folder: Folder, name: str) -> bool:
    try:
        content = folder.json(name)
    except BadInput:
        return False
    return isinstance(content, dict) and content.get("kind") == "fr_ensemble"


def check_model(folder: Folder, stem: str, findings: Findings) -> Model:
    """Return a model of the folder; what does not fit in it becomes findings."""
    file = f"{stem}.json"
    manifest = folder.record(file, Manifest, findings, "manifest")
    content = folder.json(file) if manifest else {}
    entries = {Path(entry.onnx).stem: entry for entry in manifest.members} if manifest else {}
    there = {Path(name).stem for name in folder.files if Path(name).suffix in {".onnx", ".json"}}
    names = [*entries, *sorted(n for n in there - entries.keys() if is_member_of(stem, n))]
    members = tuple(_check_member(folder, name, entries.get(name), findings) for name in names)
    model = Model(stem, manifest, content, members)
    if manifest:
        _check_manifest(model, manifest, findings)
        for member in members:
            _check_against_manifest(model, manifest, member, findings)
        graphs = [(m.graph, m.network) for m in members if m.entry and m.graph]
        check_ensemble(folder, stem, manifest, graphs, findings)
    _check_shared(model, findings)
    return model


# -- The manifest ---------------------------------------------------------------------------------


def _check_manifest(model: Model, manifest: Manifest, findings: Findings) -> None:
    file, stem, members = model.file, model.stem, manifest.members

    def same(what: str, expected: object, found: object) -> None:
        findings.same(file, "manifest", what, expected, found)

    same("id", stem, manifest.id)
    same("ensemble_size", len(members), manifest.ensemble_size)
    if len(members) < 2:
        findings.add(file, "manifest", "too few members", "2 or more", len(members))
    for entry in members:
        same(f"id of seed {entry.seed}", member_stem(stem, entry.seed), entry.id)
        same(f"onnx of seed {entry.seed}", f"{entry.id}.onnx", entry.onnx)
    same("feature_order", feature_names(manifest.inputs), manifest.feature_order)
    same("encoder_vocab", ENCODER_VOCAB, manifest.encoder_vocab)
    same("encoder_vocab_version", ENCODER_VOCAB_VERSION, manifest.encoder_vocab_version)
    same("codec_block_layout", block_names(manifest.inputs), manifest.codec_block_layout)
    same("inputs.codec_block", expected=True, found=manifest.inputs.codec_block)
    _check_lengths(file, "manifest", manifest, findings)
    _check_keys(model, manifest, findings)
    _check_ranges(model, manifest, findings)
    _check_confidence(model, manifest, findings)


def _check_lengths(file: str, check: str, record: Manifest | Sidecar, findings: Findings) -> None:
    """Hold what inputs are standardised with against the inputs that a record names."""
    counts = {"feature": len(record.feature_order), "condition": len(record.inputs.conditions)}
    for kind, count in counts.items():
        for name in (f"{kind}_mean", f"{kind}_std"):
            findings.same(file, check, f"length of {name}", count, len(getattr(record, name)))


def _check_keys(model: Model, manifest: Manifest, findings: Findings) -> None:
    for key in ("id", "seed", "onnx", "sha256"):
        for value, times in Counter(getattr(entry, key) for entry in manifest.members).items():
            if times > 1:
                problem = f"{times} members have the same {key}"
                findings.add(model.file, "manifest", problem, "", value)
    for key in ("codec_vocab", "codec_vocab_version"):
        if key in model.content:
            problem = f"{key} is an old name"
            findings.add(model.file, "manifest", problem, key.replace("codec", "encoder"))
    for key, what in (("corpus_sha256", "corpus"), ("verdict_sha256", "verdict")):
        if getattr(manifest, key) is None:
            problem = f"no {key}: it does not say on what {what} it was made"
            findings.add(model.file, "manifest", problem)


def _check_ranges(model: Model, manifest: Manifest, findings: Findings) -> None:
    file = model.file
    if manifest.target == "vmaf" and manifest.target_range not in {None, VMAF_RANGE}:
        findings.same(file, "manifest", "target_range", VMAF_RANGE, manifest.target_range)
    ranges = dict(manifest.training_ranges or {})
    names = (*manifest.feature_order, *manifest.inputs.conditions)
    if manifest.training_ranges is not None and set(ranges) != set(names):
        findings.add(file, "manifest", "training_ranges of other inputs", names, [*ranges])
    if manifest.cq_min is not None and manifest.cq_max is not None:
        ranges["cq"] = (manifest.cq_min, manifest.cq_max)
    if manifest.target_seen is not None:
        ranges["the target"] = manifest.target_seen
    for name, (low, high) in ranges.items():
        if low > high:
            findings.add(file, "manifest", f"range of {name} is upside down", "", f"{low}..{high}")


def _check_confidence(model: Model, manifest: Manifest, findings: Findings) -> None:
    confidence = manifest.confidence
    if confidence is None:
        return
    if confidence.by_pool is None:
        findings.notes.append(f"{model.file}: intervals are {confidence.method}, not calibrated")
        return
    pools = set(pools_of(manifest.unit))
    if manifest.unit not in confidence.by_pool:
        problem = f"no rule for {manifest.unit}s, whose bounds the graph gives"
        findings.add(model.file, "manifest", problem)
    elif strange := sorted(confidence.by_pool.keys() - pools):
        problem = "rules for pools that its unit does not have"
        findings.add(model.file, "manifest", problem, sorted(pools), strange)
    for pool, rule in confidence.by_pool.items():
        try:
            rule.half_width(np.zeros(1), confidence.nominal_coverage)
        except KeyError:
            found = ", ".join(rule.quantiles)
            level = f"a quantile at {confidence.nominal_coverage:g}"
            findings.add(model.file, "manifest", f"pool {pool} lacks its level", level, found)


# -- Members --------------------------------------------------------------------------------------


def _check_member(
    folder: Folder, name: str, entry: MemberEntry | None, findings: Findings
) -> Member:
    """Return a member; its graph and its sidecar are held against each other."""
    sidecar = folder.record(f"{name}.json", Sidecar, findings, "sidecar")
    onnx = entry.onnx if entry else f"{name}.onnx"
    graph, sha256 = open_graph(folder, onnx, MEMBER_OUTPUTS, findings)
    network = _read_network(graph, sha256, sidecar, findings)
    member = Member(name, entry, sidecar, graph, sha256, network)
    if sidecar is None:
        return member

    def same(what: str, expected: object, found: object) -> None:
        findings.same(member.record, "sidecar", what, expected, found)

    same("id", name, sidecar.id)
    same("onnx", onnx, sidecar.onnx)
    same("kind", "fr", sidecar.kind)
    same("input_names", INPUT_NAMES, sidecar.input_names)
    same("output_names", MEMBER_OUTPUTS, sidecar.output_names)
    same("encoder_vocab", ENCODER_VOCAB, sidecar.encoder_vocab)
    same("codec_block_layout", block_names(sidecar.inputs), sidecar.codec_block_layout)
    _check_lengths(member.record, "sidecar", sidecar, findings)
    if sha256 is not None:
        same(f"sha256 of {onnx}", sha256, sidecar.sha256)
    if graph is not None:
        widths = (len(sidecar.feature_order), len(sidecar.codec_block_layout))
        same(f"width of the inputs of {onnx}", graph.widths, widths)
        same(f"opset of {onnx}", graph.opset, sidecar.opset)
    return member


def _read_network(
    graph: GraphFile | None, sha256: str | None, sidecar: Sidecar | None, findings: Findings
) -> Network | None:
    """Return the weights in a member's graph, which must be loso's where its sidecar is."""
    if graph is None or sha256 is None or sidecar is None or graph.external:
        return None
    shape = sidecar.training_recipe
    if "loso_version" not in shape:
        return None  # of another maker, who may write graphs in another way
    hidden, depth = (shape.get(key, 0) for key in ("hidden", "depth"))
    try:
        network = read_network(graph, sha256, Recipe(hidden=hidden, depth=depth))
    except BadSettings as error:
        findings.refused(f"{sidecar.id}.json", "sidecar", error)
        return None
    if network is None:
        problem = "not what loso writes for networks of its recipe"
        expected = f"{depth} layers of {hidden}"
        findings.add(Path(graph.where).name, "graph", problem, expected)
    return network


def _check_against_manifest(
    model: Model, manifest: Manifest, member: Member, findings: Findings
) -> None:
    entry, sidecar = member.entry, member.sidecar
    if entry is None:
        findings.add(model.file, "members", f"{member.id} is there and not among its members")
        return
    if member.sha256 is not None:
        what = f"sha256 of {entry.onnx}"
        findings.same(model.file, "members", what, member.sha256, entry.sha256)
    if member.graph is not None:
        vocabulary = len(manifest.encoder_vocab) + 2 + len(manifest.inputs.conditions)
        widths = (len(manifest.feature_order), vocabulary)
        if member.graph.widths[0] != widths[0] or member.graph.widths[1] < widths[1]:
            what = f"inputs of {entry.onnx} are not as wide as feature_order and encoder_vocab ask"
            findings.add(model.file, "members", what, widths, member.graph.widths)
        elif len(manifest.encoder_vocab) != len(ENCODER_VOCAB):
            what = f"codec block of {entry.onnx} has another width than encoder_vocab asks"
            findings.add(model.file, "members", what, widths[1], member.graph.widths[1])
    if sidecar is None:
        return
    for what, ours, theirs in (
        ("seed", entry.seed, sidecar.seed),
        ("sha256", entry.sha256, sidecar.sha256),
        ("ensemble_id", model.stem, sidecar.ensemble_id),
        ("encoder_vocab_version", manifest.encoder_vocab_version, sidecar.encoder_vocab_version),
        ("verdict_sha256", manifest.verdict_sha256, sidecar.verdict_sha256),
        ("corpus.sha256", manifest.corpus_sha256, sidecar.corpus.sha256),
        ("corpus.cq_min", manifest.cq_min, sidecar.corpus.cq_min),
        ("corpus.cq_max", manifest.cq_max, sidecar.corpus.cq_max),
        *((key, getattr(manifest, key), getattr(sidecar, key)) for key in _INPUTS),
    ):
        if ours != theirs:
            problem = f"{what} is not that of the manifest"
            findings.add(member.record, "members", problem, ours, theirs)


def _check_shared(model: Model, findings: Findings) -> None:
    """Hold what sidecars say of the run they share against the first of them."""
    sidecars = list(model.sidecars.items())
    for name, sidecar in sidecars[1:]:
        first, theirs = sidecars[0]
        for key in _SHARED:
            expected, found = getattr(theirs, key), getattr(sidecar, key)
            if key == "gate":
                expected, found = (
                    {k: v for k, v in gate.items() if k != _OF_THE_SEED}
                    for gate in (expected, found)
                )
            if expected != found:
                findings.add(name, "members", f"{key} is not that of {first}", expected, found)
