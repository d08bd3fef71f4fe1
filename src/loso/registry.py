"""Which exported members are for production: listed, flipped on a verdict, and taken back.

A flip is a step of its own: it needs the very verdict that the members were exported on, and every
byte as it was exported. It writes its grounds first and the sums last; cut short in between, the
same call completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

from loso.errors import BadInput, BadSettings, Refused
from loso.files import folder_lock, read_json, sha256_of, to_json, write_json
from loso.model.files import (
    REGISTRY_FILE,
    SUMS_FILE,
    Manifest,
    MemberEntry,
    Promotion,
    Registry,
    RegistryEntry,
    Sidecar,
    find_manifest,
    promotion_name,
    read_record,
    registry_content,
)
from loso.model.grounds import Promote, read_promote
from loso.model.signing import require_key, sign_folder
from loso.model.sums import read_sums, refresh_sums

__all__ = ["ListedModel", "flip", "list_models", "unflip"]

_LONGEST_REASON: Final = 512
_GATE_KEYS: Final = {
    "passed": "passed",
    "mean_plcc": "mean_plcc",
    "mean_plcc_threshold": "mean_plcc_threshold",
    "plcc_spread": "plcc_spread",
    "plcc_spread_max": "plcc_spread_max",
    "per_seed_min": "per_seed_min_threshold",
}
"""Numbers of a verdict's gate, and their names in a sidecar."""


@dataclass(frozen=True)
class ListedModel:
    """An entry of the registry, and whether its graph is there and is the one it names."""

    entry: RegistryEntry
    state: Literal["whole", "changed", "missing", "outside the folder"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def list_models(folder: Path) -> tuple[ListedModel, ...]:
    """Return what a folder's registry holds, in its order; BadInput where it is none."""
    path = folder / REGISTRY_FILE
    registry = read_record(path, Registry)
    return tuple(ListedModel(entry, _state(folder, entry)) for entry in registry.models)


def _state(
    folder: Path, entry: RegistryEntry
) -> Literal["whole", "changed", "missing", "outside the folder"]:
    path = folder / entry.onnx
    if not path.resolve().is_relative_to(folder.resolve()):
        return "outside the folder"
    if not path.is_file():
        return "missing"
    return "whole" if sha256_of(path) == entry.sha256 else "changed"


def flip(
    model_dir: Path,
    verdict: Path,
    *,
    stem: str | None = None,
    sign_key: Path | None = None,
    now: Callable[[], datetime] = _utc_now,
) -> Promotion:
    """Mark the members of a model as production and return the grounds, which are written too.

    Refused where the verdict is not to promote, is not the one that the members were exported on,
    or where any file of the model is not as it was exported. `stem` names the model where several
    share the folder. Busy where another process works in the folder.
    """
    promote = read_promote(verdict)
    path = find_manifest(model_dir, stem)
    with folder_lock(model_dir, "flipping"):
        require_key(model_dir, sign_key)
        manifest = read_record(path, Manifest)
        content = read_json(path)
        _check_verdict(path, manifest, promote)
        registry = registry_content(model_dir)
        names = [manifest.onnx] if manifest.onnx else []
        for member in manifest.members:
            sidecar = Path(member.onnx).with_suffix(".json").name
            _check_sidecar(model_dir / sidecar, member, promote)
            _check_entry(registry, model_dir, member)
            names += [member.onnx, sidecar]
        _check_files(path, manifest, content, names)
        grounds = Promotion(
            id=path.stem,
            state="promoted",
            at_utc=now().astimezone(UTC).isoformat(timespec="seconds"),
            verdict_sha256=promote.sha256,
            verdict_generated_at_utc=promote.generated_at_utc,
            corpus_sha256=promote.evidence.corpus_sha256,
            evidence=promote.evidence.model_dump(mode="json"),
            members={member.id: member.sha256 for member in manifest.members},
        )
        target = model_dir / promotion_name(path.stem)
        grounds = _keep_time(target, grounds)
        write_json(target, grounds.model_dump(mode="json"))
        write_json(path, {**content, "smoke": False})
        _mark(model_dir, registry, manifest, smoke=False)
        _close(model_dir, path, sign_key)
    return grounds


def unflip(
    model_dir: Path,
    reason: str,
    *,
    stem: str | None = None,
    sign_key: Path | None = None,
    now: Callable[[], datetime] = _utc_now,
) -> Promotion:
    """Take the members of a model out of production and return the record of it.

    Nothing about the files needs to be in order: what is broken must be possible to withdraw, and
    the registry changes first. BadSettings without a reason.
    """
    if not reason.strip() or len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise BadSettings(
            "give a reason, in one line", expected=f"1 to {_LONGEST_REASON} characters"
        )
    path = find_manifest(model_dir, stem)
    with folder_lock(model_dir, "flipping"):
        require_key(model_dir, sign_key)
        manifest, content = read_record(path, Manifest), read_json(path)
        _mark(model_dir, registry_content(model_dir), manifest, smoke=True)
        write_json(path, {**content, "smoke": True})
        record = Promotion(
            id=path.stem,
            state="withdrawn",
            at_utc=now().astimezone(UTC).isoformat(timespec="seconds"),
            reason=reason.strip(),
            verdict_sha256=manifest.verdict_sha256,
            corpus_sha256=manifest.corpus_sha256,
            members={member.id: member.sha256 for member in manifest.members},
        )
        write_json(model_dir / promotion_name(path.stem), record.model_dump(mode="json"))
        _close(model_dir, path, sign_key)
    return record


# -- What a flip is held against ------------------------------------------------------------------


def _refusal(problem: str, where: Path, expected: object = "", found: object = "") -> Refused:
    return Refused(
        problem,
        where=str(where),
        expected=str(expected),
        found=str(found),
        fix="export the model again from the run that the verdict speaks of",
    )


def _check_verdict(path: Path, manifest: Manifest, promote: Promote) -> None:
    seeds = tuple(sorted(member.seed for member in manifest.members))
    for what, ours, theirs in (
        ("other seeds than those of the verdict", seeds, promote.seeds),
        ("another corpus", manifest.corpus_sha256, promote.evidence.corpus_sha256),
        ("not the verdict that the model was exported on", manifest.verdict_sha256, promote.sha256),
    ):
        if ours != theirs:
            raise _refusal(what, path, theirs, ours)


def _check_sidecar(path: Path, member: MemberEntry, promote: Promote) -> None:
    sidecar = read_record(path, Sidecar)
    gate = promote.gate.model_dump()
    expected: dict[str, Any] = {
        "verdict": "PROMOTE",
        "this_seed_loso_plcc": promote.gate.per_seed_plccs.get(member.seed),
        **{theirs: gate[ours] for ours, theirs in _GATE_KEYS.items()},
    }
    for key, value in expected.items():
        if sidecar.gate.get(key) != value:
            raise _refusal(f"gate.{key} is not the verdict's", path, value, sidecar.gate.get(key))
    for what, ours, theirs in (
        ("the verdict", sidecar.verdict_sha256, promote.sha256),
        ("the corpus", sidecar.corpus.sha256, promote.evidence.corpus_sha256),
        ("what the verdict judged", sidecar.evidence, promote.evidence.model_dump(mode="json")),
        ("the graph in the manifest", sidecar.sha256, member.sha256),
        ("the seed in the manifest", sidecar.seed, member.seed),
    ):
        if ours != theirs:
            raise _refusal(f"does not name {what}", path, theirs, ours)


def _check_entry(registry: Mapping[str, Any], folder: Path, member: MemberEntry) -> None:
    found = [entry for entry in registry["models"] if entry.get("id") == member.id]
    asked = {"onnx": member.onnx, "sha256": member.sha256}
    if len(found) != 1 or any(found[0].get(key) != value for key, value in asked.items()):
        raise _refusal(
            f"{member.id} does not stand there once, with its graph",
            folder / REGISTRY_FILE,
            asked,
            [{key: entry.get(key) for key in asked} for entry in found],
        )


def _check_files(
    path: Path, manifest: Manifest, content: Mapping[str, Any], names: list[str]
) -> None:
    """Refuse files of a model that are not those in its manifest and in SHA256SUMS.

    The manifest itself may be that of a flip that was cut short: it differs in `smoke` alone.
    """
    folder = path.parent
    hashes = {member.onnx: member.sha256 for member in manifest.members}
    if manifest.onnx and manifest.sha256:
        hashes[manifest.onnx] = manifest.sha256
    sums = read_sums(folder)
    for name in names:
        found = sha256_of(folder / name)
        if name in hashes and found != hashes[name]:
            raise _refusal("not the graph in the manifest", folder / name, hashes[name], found)
        if sums.get(name) != found:
            raise _refusal(f"not as in {SUMS_FILE}", folder / name, sums.get(name), found)
    either = [
        sha256(to_json({**content, "smoke": smoke}).encode()).hexdigest() for smoke in (False, True)
    ]
    if sha256_of(path) not in either or sums.get(path.name) not in either:
        raise _refusal(f"not as in {SUMS_FILE}", path, sums.get(path.name), sha256_of(path))


# -- What a flip writes ---------------------------------------------------------------------------


def _keep_time(path: Path, grounds: Promotion) -> Promotion:
    """Return the record that stands there already where it gives the same grounds."""
    if not path.exists():
        return grounds
    try:
        standing = read_record(path, Promotion)
    except BadInput:
        return grounds
    same = standing.model_copy(update={"at_utc": grounds.at_utc}) == grounds
    return standing if same else grounds


def _mark(folder: Path, registry: dict[str, Any], manifest: Manifest, *, smoke: bool) -> None:
    own = {member.id for member in manifest.members}
    models = [
        {**entry, "smoke": smoke} if entry.get("id") in own else entry
        for entry in registry["models"]
    ]
    write_json(folder / REGISTRY_FILE, {**registry, "models": models})


def _close(folder: Path, manifest: Path, sign_key: Path | None) -> None:
    refresh_sums(folder, [manifest.name, promotion_name(manifest.stem), REGISTRY_FILE])
    if sign_key is not None:
        sign_folder(folder, sign_key)
