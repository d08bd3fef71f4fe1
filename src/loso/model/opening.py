"""A model folder is checked and opened: graphs ready to run, and what its records do not agree on.

Only files in the folder itself are opened, and only those that its records name; no graph is run
that was not checked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from loso.errors import BadInput
from loso.files import read_regular
from loso.inputs import NEUTRAL, Scaler, block_names, feature_names
from loso.model.files import (
    ENSEMBLE_OUTPUTS,
    MEMBER_OUTPUTS,
    MOST_RECORD_BYTES,
    SUMS_FILE,
    Manifest,
    MemberEntry,
    Sidecar,
    find_manifest,
    record_of,
)
from loso.model.onnx_graph import Session, read_graph
from loso.model.sums import read_sums
from loso.recipe import InputSpec, Recipe
from loso.schema import CODEC_BLOCK_COLUMNS, ENCODER_VOCAB

__all__ = ["GAUSSIAN", "OpenMember", "OpenModel", "open_model"]

GAUSSIAN: Final = "gaussian, not calibrated"
"""What the intervals of folders without calibration are called: mu +- z sigma."""

R = TypeVar("R", Manifest, Sidecar)
_Sums = Mapping[str, str] | None
_TAKE_ANOTHER: Final = "take the folder anew from where it was exported"


@dataclass(frozen=True, eq=False)
class OpenMember:
    """One network, what its inputs are standardised with, and the range behind `crf_norm`."""

    session: Session
    scaler: Scaler
    n_features: int
    cq_range: tuple[float, float]

    def run(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the score of each row of raw inputs (rows, inputs)."""
        standardised = self.scaler.transform(matrix)
        blocks = standardised[:, : self.n_features], standardised[:, self.n_features :]
        return self.session.run(*blocks)[MEMBER_OUTPUTS[0]].astype(np.float64)


@dataclass(frozen=True, eq=False)
class OpenModel:
    """The members of an ensemble; `own` where its folder is one of loso's.

    `inputs` and `unit` say what a row is and what of it goes in. `corpus_sha256` names the corpora
    that training saw, `warnings` what does not fit.
    """

    manifest: Manifest
    inputs: InputSpec
    unit: str
    members: tuple[OpenMember, ...]
    own: bool
    corpus_sha256: frozenset[str]
    warnings: tuple[str, ...]

    @property
    def cq_range(self) -> tuple[float, float]:
        """The range of `cq` behind `crf_norm`."""
        return self.members[0].cq_range

    @property
    def preset_constant(self) -> float | None:
        """The only `preset_norm` that training saw; None where it saw several."""
        # The replaced trainer fed nothing else than 0.5.
        return self.manifest.preset_constant if self.own else NEUTRAL

    def run(self, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return mu and sigma (rows,) and the members' scores (members, rows) of raw inputs.

        sigma is the standard deviation of the members' scores, ddof=1. Frames and clips both come
        from these scores, so no two networks can speak of one clip; the ensemble's graph, which
        gives the same for a frame, is for programs that take no clips. Where a network leaves the
        finite numbers, so do they.
        """
        scores = np.stack([member.run(matrix) for member in self.members])
        with np.errstate(invalid="ignore"):
            return scores.mean(axis=0), scores.std(axis=0, ddof=1), scores


def open_model(folder: Path, stem: str | None = None) -> OpenModel:
    """Return the ensemble in a model folder, that of `stem` where several share it.

    A folder with an ensemble graph is loso's own and has to be whole: every graph has the sha256
    that the manifest names. In others each member's own record (sidecar) describes it and has to
    name its sha256; where the manifest says something else, a warning says so. What is read has the
    sha256 that SHA256SUMS gives it; without that file a warning says so. BadInput on anything else,
    and on graphs of other operators than those that a model is made of.
    """
    _refuse_links(folder)
    path = find_manifest(folder, stem)
    sums = read_sums(folder) if os.path.lexists(folder / SUMS_FILE) else None
    manifest = _record(path, Manifest, sums)
    if not 2 <= len(manifest.members) == manifest.ensemble_size:
        raise BadInput(
            "not as many members as it says",
            where=str(path),
            expected=f"{manifest.ensemble_size}, at least 2",
            found=f"{len(manifest.members)}",
            fix=_TAKE_ANOTHER,
        )
    opened = (_open_own if manifest.onnx else _open_foreign)(folder, path, manifest, sums)
    notes = []
    if manifest.smoke:
        notes.append(f"{path.name} calls the model a trial (smoke: true), not one for production")
    if sums is None:
        notes.append(f"no {SUMS_FILE} in the folder: a changed {path.name} would not be noticed")
    return replace(opened, warnings=(*notes, *opened.warnings))


def _refuse_links(folder: Path) -> None:
    """Refuse a folder with records that are no plain files: whoever put them there means no good.

    What is read later is opened without following links as well.
    """
    for path in sorted(folder.glob("*.json")):
        read_regular(path, MOST_RECORD_BYTES)


def _record(path: Path, kind: type[R], sums: _Sums) -> R:
    content = read_regular(path, MOST_RECORD_BYTES)
    _require_sum(path, hashlib.sha256(content).hexdigest(), sums)
    return record_of(content, path, kind)


def _require_sum(path: Path, sha256: str, sums: _Sums) -> None:
    if sums is not None:
        _require(path, f"its sha256 in {SUMS_FILE}", sums.get(path.name), sha256)


def _require(where: Path, what: str, expected: object, found: object) -> None:
    if expected != found:
        raise BadInput(
            f"{what} does not match",
            where=str(where),
            expected=f"{expected}",
            found=f"{found}",
            fix=_TAKE_ANOTHER,
        )


def _scaler(where: Path, record: Manifest | Sidecar, spec: InputSpec) -> Scaler:
    """Return what a record standardises inputs with; BadInput unless it names those of `spec`."""
    features, block = feature_names(spec), block_names(spec)
    _require(where, "feature_order", features, record.feature_order)
    _require(where, "encoder_vocab", ENCODER_VOCAB, record.encoder_vocab)
    _require(where, "codec_block_layout", block, record.codec_block_layout)
    of_features, of_conditions = record.feature_mean, record.condition_mean
    for kind, count in (("feature", len(features)), ("condition", len(spec.conditions))):
        for name in (f"{kind}_mean", f"{kind}_std"):
            _require(where, f"the length of {name}", count, len(getattr(record, name)))
    between = len(CODEC_BLOCK_COLUMNS)
    return Scaler(
        mean=np.array([*of_features, *[0.0] * between, *of_conditions]),
        std=np.array([*record.feature_std, *[1.0] * between, *record.condition_std]),
    )


def _widths(spec: InputSpec) -> tuple[int, int]:
    return len(feature_names(spec)), len(block_names(spec))


def _range(where: Path, low: float | None, high: float | None) -> tuple[float, float]:
    if low is None or high is None or low > high:
        raise BadInput(
            "no range of cq, which crf_norm needs",
            where=str(where),
            found=f"{low}..{high}",
            fix=_TAKE_ANOTHER,
        )
    return low, high


def _open_own(folder: Path, path: Path, manifest: Manifest, sums: _Sums) -> OpenModel:
    spec = manifest.inputs
    _require(path, "inputs.codec_block", True, spec.codec_block)  # noqa: FBT003 (what it must be)
    scaler, widths = _scaler(path, manifest, spec), _widths(spec)
    cq_range = _range(path, manifest.cq_min, manifest.cq_max)
    members = []
    for entry in manifest.members:
        graph, sha256 = read_graph(folder / entry.onnx, outputs=MEMBER_OUTPUTS, widths=widths)
        _require(folder / entry.onnx, "its sha256 in the manifest", entry.sha256, sha256)
        _require_sum(folder / entry.onnx, sha256, sums)
        members.append(OpenMember(Session(graph), scaler, widths[0], cq_range))
    calibrated = manifest.confidence is not None and manifest.confidence.by_pool is not None
    outputs = ENSEMBLE_OUTPUTS if calibrated else ENSEMBLE_OUTPUTS[:2]
    _, sha256 = read_graph(folder / str(manifest.onnx), outputs=outputs, widths=widths)
    _require(folder / str(manifest.onnx), "its sha256 in the manifest", manifest.sha256, sha256)
    _require_sum(folder / str(manifest.onnx), sha256, sums)
    return OpenModel(
        manifest,
        spec,
        manifest.unit,
        tuple(members),
        True,  # noqa: FBT003 (own)
        frozenset([manifest.corpus_sha256] if manifest.corpus_sha256 else []),
        (),
    )


def _open_foreign(folder: Path, path: Path, manifest: Manifest, sums: _Sums) -> OpenModel:
    opened = [_open_with_sidecar(folder, entry, sums) for entry in manifest.members]
    members = tuple(member for member, _, _ in opened)
    if len({member.cq_range for member in members}) > 1:
        raise BadInput("members disagree on the range of cq", where=str(folder), fix=_TAKE_ANOTHER)
    warnings = [warning for _, of_member, _ in opened for warning in of_member]
    theirs = opened[0][2]
    warnings += [
        f"{path.name}: {name} is not that of the members' own records, which are used"
        for name in ("feature_order", "encoder_vocab", "feature_mean", "feature_std")
        if getattr(manifest, name) != getattr(theirs, name)
    ]
    if manifest.training_ranges is None:
        warnings.append(f"{path.name} records no ranges of training: only cq is held against one")
    if manifest.encoders_seen is None:
        warnings.append(f"{path.name} does not record which encoders had rows in training")
    if manifest.confidence is not None:
        warnings.append(f"intervals are mu +- z sigma: {GAUSSIAN}")
    corpora = {hashed for _, _, sidecar in opened if (hashed := sidecar.corpus.sha256)}
    usual = Recipe()
    return OpenModel(
        manifest,
        usual.inputs,
        usual.unit,
        members,
        False,  # noqa: FBT003 (not own)
        frozenset(corpora),
        tuple(warnings),
    )


def _open_with_sidecar(
    folder: Path, entry: MemberEntry, sums: _Sums
) -> tuple[OpenMember, list[str], Sidecar]:
    """Return a member as its own record describes it, and where the manifest says otherwise."""
    where = (folder / entry.onnx).with_suffix(".json")
    sidecar = _record(where, Sidecar, sums)
    widths = _widths(InputSpec())
    graph, sha256 = read_graph(
        folder / entry.onnx, outputs=MEMBER_OUTPUTS, widths=widths, take_external=True
    )
    _require(where, f"the sha256 of {entry.onnx}", sidecar.sha256, sha256)
    for name, found in {entry.onnx: sha256, **graph.external}.items():
        _require_sum(folder / name, found, sums)
    scaler = _scaler(where, sidecar, InputSpec())
    warnings = []
    if entry.sha256 != sha256:
        warnings.append(
            f"{entry.onnx} is not the file that the manifest names by its sha256; its own record "
            "describes it, and is used"
        )
    warnings += [
        f"weights of {entry.onnx} lie in {name}, of which no record holds a sha256"
        for name in graph.external
        if sums is None
    ]
    member = OpenMember(
        Session(graph),
        scaler,
        widths[0],
        _range(where, sidecar.corpus.cq_min, sidecar.corpus.cq_max),
    )
    return member, warnings, sidecar
