"""What a model folder holds: the names of its files and the records in them.

    <stem>.json                the manifest of the ensemble
    <stem>.onnx                raw inputs in, score with interval out
    <stem>_seed{N}.onnx        a member: standardised inputs in, score out
    <stem>_seed{N}.json        its sidecar
    registry.json              which graphs there are, and which of them are for production
    <stem>.promotion.json      on what grounds they are
    MODEL_CARD.md, SHA256SUMS

Others wrote folders in this layout too, with fewer keys: what they may lack is optional here, and
`loso verify` says what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    model_validator,
)

from loso.errors import BadInput, BadSettings
from loso.features import Condition
from loso.files import parse_json, read_regular
from loso.intervals import Rule
from loso.recipe import InputSpec
from loso.records import OneFault, first_fault
from loso.schema import CANONICAL_6, CODEC_BLOCK_COLUMNS

__all__ = [
    "DEFAULT_STEM",
    "ENSEMBLE_OUTPUTS",
    "INPUT_NAMES",
    "MEMBER_OUTPUTS",
    "MODEL_CARD",
    "MOST_RECORD_BYTES",
    "OPSET",
    "REGISTRY_FILE",
    "SIGNATURE_FILE",
    "SUMS_FILE",
    "Confidence",
    "Manifest",
    "MemberEntry",
    "Promotion",
    "Registry",
    "RegistryEntry",
    "Sidecar",
    "find_manifest",
    "is_member_of",
    "member_stem",
    "promotion_name",
    "read_record",
    "record_of",
    "registry_content",
]

DEFAULT_STEM: Final = "fr_regressor_v2_ensemble_v1"
REGISTRY_FILE: Final = "registry.json"
SUMS_FILE: Final = "SHA256SUMS"
MODEL_CARD: Final = "MODEL_CARD.md"
SIGNATURE_FILE: Final = "model.sig"
MOST_RECORD_BYTES: Final = 16 * 2**20
OPSET: Final = 17
INPUT_NAMES: Final = ("features", "codec_onehot")
MEMBER_OUTPUTS: Final = ("score",)
ENSEMBLE_OUTPUTS: Final = ("mu", "sigma", "lower", "upper")

R = TypeVar("R", bound=BaseModel)

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=200)]
"""A name in the folder itself: no separators, so nothing outside it can be named."""


def _feedable(value: Any, validate: Callable[[Any], InputSpec]) -> InputSpec:
    """Return what `inputs` of a record holds; ValueError where it could not be fed."""
    try:
        spec = validate(value)
        for condition in spec.conditions:
            Condition.parse(condition)
    except BadSettings as error:
        raise ValueError(str(error)) from None
    if not 0 < len(spec.features.features) == len(spec.features.columns):
        raise ValueError("not a column for each feature")
    return spec


_Inputs = Annotated[InputSpec, WrapValidator(_feedable)]
_Deviations = tuple[Annotated[float, Field(gt=0)], ...]


class _Record(OneFault, BaseModel):
    # Keys of other makers are ignored; a number that is not finite is refused.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class MemberEntry(_Record):
    """A member as the manifest lists it."""

    id: str
    onnx: _FileName
    seed: Annotated[int, Field(ge=0)]
    sha256: _Sha256


class Confidence(_Record):
    """How wide the intervals are and what supports them.

    `by_pool` is None in folders of the replaced exporter, whose interval is Gaussian.
    `nominal_coverage` is the level of the ensemble graph's bounds.
    """

    method: str
    nominal_coverage: Annotated[float, Field(gt=0, lt=1)]
    n_calibration_sources: Annotated[int, Field(ge=1)] | None = None
    by_pool: dict[str, Rule] | None = None
    gaussian_z: float | None = None
    measured_coverage: dict[str, Any] | None = None


class Manifest(_Record):
    """The ensemble: its members, what its inputs mean, how sure it is, whether it is a trial.

    Where the unit is the frame and the inputs are the usual ones, `unit` and `inputs` are left out.
    """

    id: str
    kind: Literal["fr_ensemble"]
    ensemble_size: Annotated[int, Field(ge=1)]
    members: tuple[MemberEntry, ...]
    feature_order: tuple[str, ...]
    feature_mean: tuple[float, ...]
    feature_std: _Deviations
    condition_mean: tuple[float, ...] = ()
    condition_std: _Deviations = ()
    codec_block_layout: tuple[str, ...] = CODEC_BLOCK_COLUMNS
    inputs: _Inputs = InputSpec()
    unit: Literal["frame", "clip"] = "frame"
    encoder_vocab: Annotated[
        tuple[str, ...], Field(validation_alias=AliasChoices("encoder_vocab", "codec_vocab"))
    ]
    encoder_vocab_version: Annotated[
        int, Field(validation_alias=AliasChoices("encoder_vocab_version", "codec_vocab_version"))
    ]
    smoke: bool
    confidence: Confidence | None = None
    eval: dict[str, Any] | None = None
    onnx: _FileName | None = None
    sha256: _Sha256 | None = None
    target: str = "vmaf"
    target_range: tuple[float, float] | None = None
    target_seen: tuple[float, float] | None = None
    cq_min: float | None = None
    cq_max: float | None = None
    preset_constant: float | None = None
    corpus_sha256: _Sha256 | None = None
    verdict_sha256: _Sha256 | None = None
    training_ranges: dict[str, tuple[float, float]] | None = None
    training_sources: dict[str, str] | None = None
    encoders_seen: tuple[str, ...] | None = None


class SidecarCorpus(_Record):
    """The corpus that a member was fitted on."""

    path: str | None = None
    sha256: str | None = None
    n_rows: int | None = None
    cq_min: float | None = None
    cq_max: float | None = None


class Sidecar(_Record):
    """A member's own record; `gate` repeats what the verdict said of it."""

    id: str
    seed: Annotated[int, Field(ge=0)]
    onnx: _FileName
    sha256: _Sha256
    kind: str = "fr"
    opset: int | None = None
    ensemble_id: str | None = None
    codec_aware: bool | None = None
    codec_block_layout: tuple[str, ...] = CODEC_BLOCK_COLUMNS
    encoder_vocab: tuple[str, ...] | None = None
    encoder_vocab_version: int | None = None
    feature_order: tuple[str, ...] = CANONICAL_6
    feature_mean: tuple[float, ...]
    feature_std: _Deviations
    condition_mean: tuple[float, ...] = ()
    condition_std: _Deviations = ()
    inputs: _Inputs = InputSpec()
    unit: Literal["frame", "clip"] = "frame"
    input_names: tuple[str, ...] = INPUT_NAMES
    output_names: tuple[str, ...] = MEMBER_OUTPUTS
    corpus: SidecarCorpus = SidecarCorpus()
    training_recipe: dict[str, Any] = {}
    gate: dict[str, Any] = {}
    loso_mean_plcc: float | None = None
    verdict_sha256: _Sha256 | None = None
    evidence: dict[str, Any] | None = None
    notes: str = ""


class Promotion(_Record):
    """On what grounds members are for production, or why they no longer are.

    `verdict_sha256` is that of the verdict's file, `evidence` what it says it judged, `members` the
    sha256 of each member's graph by its id. `accepted_limits` are those that let more through than
    the standard ones, as the flip was told to accept.
    """

    id: str
    state: Literal["promoted", "withdrawn"]
    at_utc: str
    reason: str = ""
    verdict_sha256: _Sha256 | None = None
    verdict_generated_at_utc: str | None = None
    corpus_sha256: _Sha256 | None = None
    evidence: dict[str, Any] = {}
    members: dict[str, _Sha256] = {}
    accepted_limits: dict[str, float] = {}


class RegistryEntry(_Record):
    """One graph, full reference, no reference or a filter; no other keys are written.

    Without `smoke` a member of an ensemble is on trial, what others keep there is for production.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
    kind: Literal["fr", "nr", "filter"]
    onnx: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_./-]*\.onnx$", max_length=256)]
    sha256: _Sha256
    opset: Annotated[int, Field(ge=7, le=21)] | None = None
    smoke: bool = False
    notes: Annotated[str, Field(max_length=512)] = ""

    @model_validator(mode="before")
    @classmethod
    def _is_on_trial(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        name = str(content.get("id"))
        return {"smoke": is_member_of(name.rpartition("_seed")[0], name), **content}


class Registry(_Record):
    """Which graphs there are, and which of them are for production."""

    schema_version: int
    models: tuple[RegistryEntry, ...]


def member_stem(stem: str, seed: int) -> str:
    """Return what the files of a member are called, up to the suffix.

    >>> member_stem("fr", 3)
    'fr_seed3'
    """
    return f"{stem}_seed{seed}"


def is_member_of(stem: str, name: str) -> bool:
    """Tell whether `name` is what a member of `stem` is called, whatever its seed.

    >>> is_member_of("fr", "fr_seed3"), is_member_of("fr", "fr_seed_3")
    (True, False)
    """
    return re.fullmatch(re.escape(stem) + "_seed[0-9]+", name) is not None


def promotion_name(stem: str) -> str:
    """Return the name of the file that says why members are for production.

    >>> promotion_name("fr")
    'fr.promotion.json'
    """
    return f"{stem}.promotion.json"


def find_manifest(folder: Path, stem: str | None = None) -> Path:
    """Return the manifest in a model folder, that of `stem` where several share the folder.

    BadInput where there is none, or more than one and no `stem`.
    """
    if not folder.is_dir():
        raise BadInput("not a model folder", where=str(folder), fix="name the folder of an export")
    found = [path for path in sorted(folder.glob("*.json")) if _is_manifest(path)]
    if stem is not None:
        found = [path for path in found if path.stem == stem]
    if len(found) != 1:
        raise BadInput(
            "not a model folder",
            where=str(folder),
            expected=f"one manifest of kind fr_ensemble{f', {stem}.json' if stem else ''}",
            found=", ".join(path.name for path in found) or "none",
            fix="name one of them with --name" if found else "name the folder of an export",
        )
    return found[0]


def _is_manifest(path: Path) -> bool:
    try:
        content = parse_json(read_regular(path, MOST_RECORD_BYTES), str(path))
    except BadInput:
        return False
    return isinstance(content, dict) and content.get("kind") == "fr_ensemble"


def read_record(path: Path, kind: type[R]) -> R:
    """Return the record of `kind` in a JSON file; BadInput names the key and what it needs."""
    return record_of(read_regular(path, MOST_RECORD_BYTES), path, kind)


def record_of(content: bytes, path: Path, kind: type[R]) -> R:
    """Return the record of `kind` that the bytes of `path` hold, as `read_record` does."""
    try:
        return kind.model_validate(parse_json(content, str(path)))
    except ValidationError as error:
        key, message, found = first_fault(error)
        raise BadInput(
            f"{key or 'the record'} cannot be used: {message}", where=str(path), found=found
        ) from None


def registry_content(folder: Path) -> dict[str, Any]:
    """Return the registry of a folder with all keys, others' too; an empty one where there is none.

    BadInput where the file is no registry.
    """
    path = folder / REGISTRY_FILE
    if not path.exists():
        return {"schema_version": 1, "models": []}
    content = parse_json(read_regular(path, MOST_RECORD_BYTES), str(path))
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, list) or not all(isinstance(entry, dict) for entry in models):
        raise BadInput("not a registry", where=str(path), expected="an object with a list models")
    return dict(content)
