"""A model folder is checked and opened: graphs ready to run, and what its records do not agree on.

Only files in the folder itself are opened, and only those that its records name; no graph is run
that was not checked.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loso.errors import BadInput
from loso.inputs import NEUTRAL
from loso.model.files import (
    ENSEMBLE_OUTPUTS,
    MEMBER_OUTPUTS,
    Manifest,
    MemberEntry,
    Sidecar,
    find_manifest,
    read_record,
)
from loso.model.onnx_graph import Session, read_graph
from loso.schema import CANONICAL_6, CODEC_BLOCK_COLUMNS, ENCODER_VOCAB

__all__ = ["GAUSSIAN", "OpenMember", "OpenModel", "open_model"]

GAUSSIAN: Final = "gaussian, not calibrated"
"""What the intervals of folders without calibration are called: mu +- z sigma."""

_N_FEATURES: Final = len(CANONICAL_6)
_WIDTHS: Final = (_N_FEATURES, len(CODEC_BLOCK_COLUMNS))
_MOST_JSON_BYTES: Final = 16 * 2**20
_TAKE_ANOTHER: Final = "take the folder anew from where it was exported"


@dataclass(frozen=True, eq=False)
class OpenMember:
    """One network, what its features are standardised with, and the range behind `crf_norm`."""

    session: Session
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    cq_range: tuple[float, float]

    def run(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the score of each row of raw features and codec block (rows, 20)."""
        features = (matrix[:, :_N_FEATURES] - self.mean) / self.std
        scores = self.session.run(features, matrix[:, _N_FEATURES:])[MEMBER_OUTPUTS[0]]
        return scores.astype(np.float64)


@dataclass(frozen=True, eq=False)
class OpenModel:
    """The members of an ensemble and, in folders of loso's own, its graph.

    `corpus_sha256` names the corpora that training saw, `warnings` what does not fit.
    """

    manifest: Manifest
    members: tuple[OpenMember, ...]
    ensemble: Session | None
    corpus_sha256: frozenset[str]
    warnings: tuple[str, ...]

    @property
    def cq_range(self) -> tuple[float, float]:
        """The range of `cq` behind `crf_norm`."""
        return self.members[0].cq_range

    @property
    def preset_constant(self) -> float | None:
        """The only `preset_norm` that training saw; None where it saw several."""
        # The replaced trainer, whose folders have no ensemble graph, fed nothing else than 0.5.
        return NEUTRAL if self.ensemble is None else self.manifest.preset_constant

    def run(self, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return mu and sigma (rows,) and the members' scores (members, rows) of raw inputs.

        sigma is the standard deviation of the members' scores, ddof=1. Where a network leaves the
        finite numbers, so do they.
        """
        scores = np.stack([member.run(matrix) for member in self.members])
        if self.ensemble is None:
            with np.errstate(invalid="ignore"):
                return scores.mean(axis=0), scores.std(axis=0, ddof=1), scores
        found = self.ensemble.run(matrix[:, :_N_FEATURES], matrix[:, _N_FEATURES:])
        mu, sigma = (found[name].astype(np.float64) for name in ENSEMBLE_OUTPUTS[:2])
        return mu, sigma, scores


def open_model(folder: Path, stem: str | None = None) -> OpenModel:
    """Return the ensemble in a model folder, that of `stem` where several share it.

    A folder with an ensemble graph is loso's own and has to be whole: every graph has the sha256
    that the manifest names. In others each member's own record (sidecar) describes it and has to
    name its sha256; where the manifest says something else, a warning says so. BadInput on anything
    else, and on graphs of other operators than those that a model is made of.
    """
    _refuse_links(folder)
    path = find_manifest(folder, stem)
    manifest = read_record(path, Manifest)
    if not 2 <= len(manifest.members) == manifest.ensemble_size:
        raise BadInput(
            "not as many members as it says",
            where=str(path),
            expected=f"{manifest.ensemble_size}, at least 2",
            found=f"{len(manifest.members)}",
            fix=_TAKE_ANOTHER,
        )
    return (_open_own if manifest.onnx else _open_foreign)(folder, path, manifest)


def _refuse_links(folder: Path) -> None:
    """Refuse records that are no plain files, before any is opened: a link leads anywhere."""
    for path in sorted(folder.glob("*.json")):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_JSON_BYTES:
            raise BadInput(
                "not opened",
                where=str(path),
                expected=f"a regular file of at most {_MOST_JSON_BYTES} bytes, no link",
                fix=_TAKE_ANOTHER,
            )


def _require(where: Path, what: str, expected: object, found: object) -> None:
    if expected != found:
        raise BadInput(
            f"{what} does not match",
            where=str(where),
            expected=f"{expected}",
            found=f"{found}",
            fix=_TAKE_ANOTHER,
        )


def _require_canonical(where: Path, record: Manifest | Sidecar) -> None:
    _require(where, "feature_order", CANONICAL_6, record.feature_order)
    _require(where, "encoder_vocab", ENCODER_VOCAB, record.encoder_vocab)
    for name in ("feature_mean", "feature_std"):
        _require(where, f"the length of {name}", _N_FEATURES, len(getattr(record, name)))


def _range(where: Path, low: float | None, high: float | None) -> tuple[float, float]:
    if low is None or high is None or low > high:
        raise BadInput(
            "no range of cq, which crf_norm needs",
            where=str(where),
            found=f"{low}..{high}",
            fix=_TAKE_ANOTHER,
        )
    return low, high


def _open_own(folder: Path, path: Path, manifest: Manifest) -> OpenModel:
    _require_canonical(path, manifest)
    cq_range = _range(path, manifest.cq_min, manifest.cq_max)
    mean, std = np.array(manifest.feature_mean), np.array(manifest.feature_std)
    members = []
    for entry in manifest.members:
        graph, sha256 = read_graph(folder / entry.onnx, outputs=MEMBER_OUTPUTS, widths=_WIDTHS)
        _require(folder / entry.onnx, "its sha256 in the manifest", entry.sha256, sha256)
        members.append(OpenMember(Session(graph), mean, std, cq_range))
    calibrated = manifest.confidence is not None and manifest.confidence.by_pool is not None
    outputs = ENSEMBLE_OUTPUTS if calibrated else ENSEMBLE_OUTPUTS[:2]
    graph, sha256 = read_graph(folder / str(manifest.onnx), outputs=outputs, widths=_WIDTHS)
    _require(folder / str(manifest.onnx), "its sha256 in the manifest", manifest.sha256, sha256)
    return OpenModel(
        manifest,
        tuple(members),
        Session(graph),
        frozenset([manifest.corpus_sha256] if manifest.corpus_sha256 else []),
        (),
    )


def _open_foreign(folder: Path, path: Path, manifest: Manifest) -> OpenModel:
    opened = [_open_with_sidecar(folder, entry) for entry in manifest.members]
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
    return OpenModel(manifest, members, None, frozenset(corpora), tuple(warnings))


def _open_with_sidecar(folder: Path, entry: MemberEntry) -> tuple[OpenMember, list[str], Sidecar]:
    """Return a member as its own record describes it, and where the manifest says otherwise."""
    where = (folder / entry.onnx).with_suffix(".json")
    sidecar = read_record(where, Sidecar)
    graph, sha256 = read_graph(
        folder / entry.onnx, outputs=MEMBER_OUTPUTS, widths=_WIDTHS, take_external=True
    )
    _require(where, f"the sha256 of {entry.onnx}", sidecar.sha256, sha256)
    _require_canonical(where, sidecar)
    _require(where, "codec_block_layout", CODEC_BLOCK_COLUMNS, sidecar.codec_block_layout)
    warnings = []
    if entry.sha256 != sha256:
        warnings.append(
            f"{entry.onnx} is not the file that the manifest names by its sha256; its own record "
            "describes it, and is used"
        )
    warnings += [
        f"weights of {entry.onnx} lie in {name}, of which no record holds a sha256"
        for name in graph.external
    ]
    member = OpenMember(
        Session(graph),
        np.array(sidecar.feature_mean),
        np.array(sidecar.feature_std),
        _range(where, sidecar.corpus.cq_min, sidecar.corpus.cq_max),
    )
    return member, warnings, sidecar
