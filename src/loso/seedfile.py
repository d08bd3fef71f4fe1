"""The record of one trained seed, `loso_seed{N}.json`: what it holds, how it is written and read.

Training writes it and judging reads it. It keeps every key of the trainer that loso replaces, so
files of that trainer are read too: they hold fewer keys, name their folds `per_fold` in the oldest
ones, and write NaN where a correlation is undefined.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, Final, Literal, TypedDict

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from loso.errors import BadEvidence
from loso.files import read_file, write_json
from loso.recipe import InputSpec, Recipe
from loso.records import OneFault

__all__ = [
    "DRY_RUN",
    "RECIPE_KEYS",
    "SCHEMA_VERSION",
    "FoldScore",
    "Predictions",
    "SeedFile",
    "Summary",
    "parse_seed_file",
    "predictions_file_name",
    "read_seed_file",
    "recipe_of",
    "seed_file_name",
    "summarise",
    "training_command",
    "write_seed_file",
]

SCHEMA_VERSION: Final = 1

DRY_RUN: Final = "dry-run"
"""The `note` of a seed that one epoch made, to try the machinery; no gate accepts it."""

RECIPE_KEYS: Final = (
    "epochs",
    "batch_size",
    "lr",
    "weight_decay",
    "hidden",
    "depth",
    "dropout",
    "num_codecs",
    "target",
    "unit",
    "inputs",
    "standardise_target",
    "encoder_vocab_version",
)
"""Keys that must agree between the seeds of one ensemble."""

_NEVER_IN_OLD_FILES: Final = (
    *("corpus_sha256", "corpus_rows", "hidden", "depth", "dropout", "target", "unit"),
    *("excluded_sources", "engine", "versions", "predictions"),
)
"""Keys that the replaced trainer did not write: with one of them, a file must hold them all."""

_LEFT_OUT_WHEN_EMPTY: Final = ("note", "excluded_sources", "reason")
_LEFT_OUT_WHEN_USUAL: Final = ("inputs", "standardise_target")
"""Keys that a file leaves out where a network is fed and asked as fr_regressor_v2 is."""

_LONGEST_FOUND: Final = 80


class Summary(TypedDict):
    """The keys of a seed file that follow from its folds."""

    mean_plcc: float | None
    std_plcc: float | None
    min_plcc: float | None
    max_plcc: float | None
    mean_srocc: float | None
    mean_rmse: float | None


def _nan_is_undefined(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _input_spec(value: Any) -> Any:
    # A list is no tuple to a strict record, and strictness goes down into a dataclass.
    return TypeAdapter(InputSpec).validate_python(value) if isinstance(value, dict) else value


_Correlation = Annotated[float, Field(ge=-1.0, le=1.0)]
_Size = Annotated[float, Field(ge=0.0, le=1e150)]  # sums of such numbers stay finite
_Undefinable = BeforeValidator(_nan_is_undefined)


class _Record(OneFault, BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class FoldScore(_Record):
    """How the model that never saw `held_out` does on it; None is an undefined number.

    `rmse` is in units of the target. `reason` says why a correlation is undefined.
    """

    held_out: str
    n_train: Annotated[int, Field(ge=1)] | None = None
    n_val: Annotated[int, Field(ge=1)] | None = None
    plcc: Annotated[_Correlation | None, _Undefinable]
    srocc: Annotated[_Correlation | None, _Undefinable] = None
    rmse: Annotated[_Size | None, _Undefinable] = None
    reason: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_old_name(cls, content: Any) -> Any:
        return _renamed(content, "source", "held_out")


class Predictions(_Record):
    """The out-of-fold predictions a seed's scores were computed from, by name and hash."""

    file: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SeedFile(_Record):
    """One seed's scores on every held-out source, and what they were made with.

    A file with a `schema_version` holds every key, but for those that are left out where they
    would say nothing: `note excluded_sources inputs standardise_target`. A file of
    the replaced trainer has none, and no key that loso added; there, None means "not recorded".
    """

    schema_version: Literal[1] | None = None
    seed: Annotated[int, Field(ge=0)]
    note: str | None = None
    corpus: str | None = None
    corpus_sha256: str | None = None
    corpus_rows: Annotated[int, Field(ge=1)] | None = None
    n_folds: int | None = None
    folds: Annotated[tuple[FoldScore, ...], Field(strict=False)] = ()
    mean_plcc: Annotated[_Correlation | None, _Undefinable]
    std_plcc: Annotated[_Size | None, _Undefinable] = None
    min_plcc: Annotated[_Correlation | None, _Undefinable] = None
    max_plcc: Annotated[_Correlation | None, _Undefinable] = None
    mean_srocc: Annotated[_Correlation | None, _Undefinable] = None
    mean_rmse: Annotated[_Size | None, _Undefinable] = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    hidden: int | None = None
    depth: int | None = None
    dropout: float | None = None
    num_codecs: int | None = None
    target: str | None = None
    unit: str | None = None
    inputs: Annotated[InputSpec, BeforeValidator(_input_spec)] = InputSpec()
    standardise_target: bool = False
    encoder_vocab_version: int | None = None
    excluded_sources: Annotated[tuple[str, ...], Field(strict=False)] = ()
    engine: str | None = None
    versions: dict[str, str] | None = None
    predictions: Predictions | None = None
    wall_time_s: _Size | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_old_name(cls, content: Any) -> Any:
        return _renamed(content, "per_fold", "folds")

    @model_validator(mode="after")
    def _is_whole(self) -> SeedFile:
        if self.schema_version is None:
            ours = [key for key in _NEVER_IN_OLD_FILES if key in self.model_fields_set]
            if ours:
                raise ValueError(f"schema_version is missing beside {', '.join(ours)}")
            return self
        missing = _absent(self)
        for index, fold in enumerate(self.folds):
            missing += [f"folds.{index}.{key}" for key in _absent(fold)]
        if missing:
            raise ValueError(f"keys are missing: {', '.join(missing)}")
        return self


def _absent(record: _Record) -> list[str]:
    """Return the keys that were not given, or given as null where null says nothing."""
    may_be_null = {*Summary.__annotations__, "plcc", "srocc", "rmse"}
    given = {
        key
        for key in record.model_fields_set
        if key in may_be_null or getattr(record, key) is not None
    }
    optional = {*_LEFT_OUT_WHEN_EMPTY, *_LEFT_OUT_WHEN_USUAL}
    return sorted(type(record).model_fields.keys() - given - optional)


def _renamed(content: Any, old: str, new: str) -> Any:
    if isinstance(content, dict) and old in content and new not in content:
        return {(new if key == old else key): value for key, value in content.items()}
    return content


def recipe_of(record: SeedFile) -> Recipe:
    """Return the recipe that a seed was trained with; what is not recorded is the default."""
    recorded = {f.name: getattr(record, f.name) for f in fields(Recipe)}
    return Recipe(**{name: value for name, value in recorded.items() if value is not None})


def seed_file_name(seed: int) -> str:
    """Return the name of a seed's file.

    >>> seed_file_name(3)
    'loso_seed3.json'
    """
    return f"loso_seed{seed}.json"


def predictions_file_name(seed: int) -> str:
    """Return the name of a seed's out-of-fold predictions.

    >>> predictions_file_name(3)
    'oof_seed3.parquet'
    """
    return f"oof_seed{seed}.parquet"


def training_command(folder: Path, seeds: Iterable[int], *, force: bool = False) -> str:
    """Return the command that trains `seeds` into `folder`, to paste into a shell.

    With `force`, seeds that are there are trained again.

    >>> training_command(Path("my run"), [2, 0], force=True)
    "loso train --out-dir 'my run' --seeds 0,2 --force --corpus CORPUS"
    """
    listed = ",".join(str(seed) for seed in sorted(seeds))
    again = " --force" if force else ""
    return (
        f"loso train --out-dir {shlex.quote(str(folder))} --seeds {listed}{again} --corpus CORPUS"
    )


def summarise(folds: Sequence[FoldScore]) -> Summary:
    """Return the summary keys of a seed file over its folds; every fold weighs the same.

    A number over an undefined one is None: leaving that fold out would flatter the rest.
    `std_plcc` has ddof=1, so it is None for fewer than two folds.

    >>> folds = [FoldScore(held_out="a", plcc=0.75), FoldScore(held_out="b", plcc=0.5)]
    >>> summarise(folds)["mean_plcc"]
    0.625
    """
    plccs = _all_or_none(fold.plcc for fold in folds)
    sroccs = _all_or_none(fold.srocc for fold in folds)
    rmses = _all_or_none(fold.rmse for fold in folds)
    return {
        "mean_plcc": fmean(plccs) if plccs else None,
        "std_plcc": stdev(plccs) if len(plccs) > 1 else None,
        "min_plcc": min(plccs, default=None),
        "max_plcc": max(plccs, default=None),
        "mean_srocc": fmean(sroccs) if sroccs else None,
        "mean_rmse": fmean(rmses) if rmses else None,
    }


def _all_or_none(scores: Iterable[float | None]) -> list[float]:
    defined = []
    for score in scores:
        if score is None:
            return []
        defined.append(score)
    return defined


def write_seed_file(path: Path, seed_file: SeedFile) -> None:
    """Write a seed's record as JSON, atomically; an undefined number is null."""
    content = seed_file.model_dump(mode="json")
    for part in (content, *content["folds"]):
        for key in _LEFT_OUT_WHEN_EMPTY:
            if not part.get(key):
                part.pop(key, None)
    usual = SeedFile.model_fields
    for key in _LEFT_OUT_WHEN_USUAL:
        if getattr(seed_file, key) == usual[key].default:
            del content[key]
    write_json(path, content)


def read_seed_file(path: Path) -> SeedFile:
    """Return a seed's record; BadEvidence names the file, the key, what it needs and what it has.

    NaN, which the replaced trainer wrote for an undefined correlation, is read as None; any other
    number that is not finite is refused.
    """
    try:
        content = read_file(path)
    except OSError as error:
        raise BadEvidence(f"cannot be read ({error.strerror})", where=str(path)) from None
    return parse_seed_file(content, path)


def parse_seed_file(content: bytes, path: Path) -> SeedFile:
    """Return the record in `content`, as `read_seed_file` does; `path` is where it came from."""
    try:
        return SeedFile.model_validate_json(content)
    except ValidationError as error:
        raise _refusal(path, error) from None


def _refusal(path: Path, error: ValidationError) -> BadEvidence:
    first = error.errors(include_url=False)[0]
    kind, key = first["type"], ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    expected = found = ""
    if kind == "json_invalid":
        problem = message.replace("Invalid", "not valid")
    elif kind == "value_error":
        problem = message
    elif kind == "missing":
        problem = f"keys are missing: {key}"
    else:
        problem, expected = f"{key or 'the record'} cannot be used", message
        found = repr(first["input"])[:_LONGEST_FOUND]
    return BadEvidence(problem, where=str(path), expected=expected, found=found, fix=_remedy(path))


def _remedy(path: Path) -> str:
    named = re.fullmatch(r"loso_seed([0-9]+)\.json", path.name)
    again = f" with {training_command(path.parent, [int(named[1])], force=True)}" if named else ""
    return f"restore the file, or train this seed again{again}"
