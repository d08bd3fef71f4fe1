"""Which exported members are for production: listed, flipped on a verdict, and taken back.

A flip is a step of its own: it needs the very verdict that the members were exported on, and every
byte as it was exported. It writes its grounds first and the sums last; cut short in between, the
same call completes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

from loso.errors import BadInput, BadSettings, Refused
from loso.files import read_json, sha256_of, to_json, write_atomic
from loso.locks import folder_lock
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
    is_member_of,
    promotion_name,
    read_record,
    registry_content,
)
from loso.model.grounds import Promote, loose_limits, read_promote
from loso.model.signing import require_key, sign_folder
from loso.model.sums import read_sums, refresh_sums
from loso.recipe import GateThresholds

__all__ = ["ListedModel", "flip", "list_models", "unflip"]

_LONGEST_REASON: Final = 512
_SHA256: Final = re.compile("[0-9a-f]{64}")


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
    if path.is_symlink() or not path.is_file():
        return "missing"
    return "whole" if sha256_of(path) == entry.sha256 else "changed"


def flip(
    model_dir: Path,
    verdict: Path,
    *,
    stem: str | None = None,
    sign_key: Path | None = None,
    accept_limits: bool = False,
    again: bool = False,
    now: Callable[[], datetime] = _utc_now,
) -> Promotion:
    """Mark the members of a model as production and return the grounds, which are written too.

    Refused where the verdict is not to promote, is not the one that the members were exported on,
    or where any file of the model is not as it was exported; without `accept_limits` where the
    verdict's limits are looser than the standard ones; without `again` where the model was
    withdrawn, which the new record takes the place of. `stem` names the model where several
    share the folder. Busy where another process works in the folder.
    """
    promote = read_promote(verdict)
    path = find_manifest(model_dir, stem)
    accepted = _accepted(verdict, promote, accept_limits=accept_limits)
    with folder_lock(model_dir, "flipping"):
        require_key(model_dir, sign_key)
        manifest = read_record(path, Manifest)
        content = read_json(path)
        _check_verdict(path, manifest, promote)
        target = model_dir / promotion_name(path.stem)
        standing = _standing(target)
        if standing is not None and standing.state == "withdrawn" and not again:
            raise Refused(
                f"the model was withdrawn ({standing.reason})",
                where=str(target),
                fix="say --again if the reason no longer holds, or export another model",
            )
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
            evidence=promote.evidence.to_dict(),
            members={member.id: member.sha256 for member in manifest.members},
            accepted_limits=accepted,
        )
        if (
            standing is not None
            and standing.model_copy(update={"at_utc": grounds.at_utc}) == grounds
        ):
            grounds = standing
        _put(
            model_dir,
            {
                target.name: grounds.model_dump(mode="json"),
                path.name: {**content, "smoke": False},
                REGISTRY_FILE: _marked(registry, path.stem, smoke=False),
            },
        )
        _close(model_dir, path.stem, sign_key)
    return grounds


def unflip(
    model_dir: Path,
    reason: str,
    *,
    stem: str | None = None,
    sign_key: Path | None = None,
    now: Callable[[], datetime] = _utc_now,
) -> tuple[Promotion, tuple[str, ...]]:
    """Take a model out of production; return the record of it, and what could not be brought along.

    Nothing but the registry needs to be in order: what is broken must be possible to withdraw.
    Members are the entries that are called so; a damaged manifest or SHA256SUMS stays as it is.
    BadSettings without a reason, BadInput where the registry has no members of one model.
    """
    if not reason.strip() or len(reason) > _LONGEST_REASON or not reason.isprintable():
        raise BadSettings(
            "give a reason, in one line", expected=f"1 to {_LONGEST_REASON} characters"
        )
    with folder_lock(model_dir, "flipping"):
        require_key(model_dir, sign_key)
        registry = registry_content(model_dir)
        stem = _stem_of(model_dir / REGISTRY_FILE, registry, stem)
        entries = [e for e in registry["models"] if is_member_of(stem, str(e.get("id")))]
        contents: dict[str, Any] = {REGISTRY_FILE: _marked(registry, stem, smoke=True)}
        left, verdict, corpus = [], None, None
        path = model_dir / f"{stem}.json"
        try:
            manifest = read_record(path, Manifest)
            contents[path.name] = {**read_json(path), "smoke": True}
            verdict, corpus = manifest.verdict_sha256, manifest.corpus_sha256
        except BadInput as error:
            left.append(f"{path.name} does not say so: {error.problem}")
        record = Promotion(
            id=stem,
            state="withdrawn",
            at_utc=now().astimezone(UTC).isoformat(timespec="seconds"),
            reason=reason.strip(),
            verdict_sha256=verdict,
            corpus_sha256=corpus,
            members={
                str(entry["id"]): entry["sha256"]
                for entry in entries
                if _SHA256.fullmatch(str(entry.get("sha256")))
            },
        )
        contents[promotion_name(stem)] = record.model_dump(mode="json")
        _put(model_dir, contents)
        try:
            _close(model_dir, stem, sign_key)
        except BadInput as error:
            left.append(f"{SUMS_FILE} is not that of the folder: {error.problem}")
    return record, tuple(left)


def _stem_of(path: Path, registry: Mapping[str, Any], stem: str | None) -> str:
    """Return which model to withdraw: the one named, or the only one that has members."""
    ids = [str(entry.get("id")) for entry in registry["models"]]
    stems = {of for name in ids if is_member_of(of := name.rpartition("_seed")[0], name)}
    stems &= stems if stem is None else {stem}
    if len(stems) != 1:
        raise BadInput(
            "no members of one model",
            where=str(path),
            expected=f"members of {stem}" if stem else "members of one ensemble",
            found=", ".join(sorted(stems)) or "none",
            fix="name one of them with --name" if stems else "name the folder of an export",
        )
    return stems.pop()


# -- What a flip is held against ------------------------------------------------------------------


def _refusal(problem: str, where: Path, expected: object = "", found: object = "") -> Refused:
    return Refused(
        problem,
        where=str(where),
        expected=str(expected),
        found=str(found),
        fix="export the model again from the run that the verdict speaks of",
    )


def _accepted(path: Path, promote: Promote, *, accept_limits: bool) -> dict[str, float]:
    """Return the limits of a verdict that are looser than the standard ones, if they may be so."""
    loose = loose_limits(promote.gate.model_dump())
    if loose and not accept_limits:
        raise Refused(
            "limits looser than the standard ones",
            where=str(path),
            expected=", ".join(f"{name} {getattr(GateThresholds, name):g}" for name in loose),
            found=", ".join(f"{name} {limit:g}" for name, limit in loose.items()),
            fix="say --accept-limits if this model needs no more; the promotion records it",
        )
    return loose


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
    for key, value in promote.gate.of_seed(member.seed).items():
        if sidecar.gate.get(key) != value:
            raise _refusal(f"gate.{key} is not the verdict's", path, value, sidecar.gate.get(key))
    for what, ours, theirs in (
        ("the verdict", sidecar.verdict_sha256, promote.sha256),
        ("the corpus", sidecar.corpus.sha256, promote.evidence.corpus_sha256),
        ("what the verdict judged", sidecar.evidence, promote.evidence.to_dict()),
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


def _standing(path: Path) -> Promotion | None:
    """Return the record that stands there already; None where there is none that can be read."""
    try:
        return read_record(path, Promotion)
    except BadInput:
        return None


def _marked(registry: Mapping[str, Any], stem: str, *, smoke: bool) -> dict[str, Any]:
    """Return a registry in which the members of a model have another flag."""
    models = [
        {**entry, "smoke": smoke} if is_member_of(stem, str(entry.get("id"))) else entry
        for entry in registry["models"]
    ]
    return {**registry, "models": models}


def _put(folder: Path, contents: Mapping[str, Any]) -> None:
    """Write records in their order; BadInput, with nothing written, where one is not JSON."""
    rendered = {}
    for name, content in contents.items():
        try:
            rendered[name] = to_json(content)
        except ValueError as error:
            raise BadInput(f"cannot be written again ({error})", where=str(folder / name)) from None
    for name, text in rendered.items():
        with write_atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _close(folder: Path, stem: str, sign_key: Path | None) -> None:
    refresh_sums(folder, [f"{stem}.json", promotion_name(stem), REGISTRY_FILE])
    if sign_key is not None:
        sign_folder(folder, sign_key)
