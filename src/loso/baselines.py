"""What a model must be better than: figures of it and of its baselines, side by side.

All stand on the same rows and the same folds, so a gain is paired. A baseline that speaks another
scale than the target is brought onto it without the held-out source, and so is the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from loso.errors import BadEvidence
from loso.files import write_json
from loso.metrics import (
    Resampled,
    beats,
    bootstrap,
    jackknife,
    map_in_sample,
    map_out_of_fold,
    measure_agreement,
    outlier_ratio,
    rmse,
    rmse_gain_by_source,
    rmse_star,
)
from loso.recipe import is_mapped
from loso.records import OneFault, parse_record

__all__ = [
    "LEVEL",
    "MODEL",
    "RESAMPLES",
    "RESAMPLE_SEED",
    "RIDGE",
    "VMAF",
    "WITHOUT_CODEC_BLOCK",
    "WITHOUT_CONDITIONS",
    "BaselinesFile",
    "Ends",
    "Figures",
    "Gain",
    "Panels",
    "SourceFigures",
    "gain_on_scale",
    "measure_figures",
    "on_scale",
    "paired_gain",
    "parse_baselines",
    "write_baselines",
]

MODEL: Final = "model"
VMAF: Final = "vmaf"
RIDGE: Final = "ridge"
WITHOUT_CODEC_BLOCK: Final = "without_codec_block"
WITHOUT_CONDITIONS: Final = "without_conditions"

LEVEL: Final = 0.95
RESAMPLES: Final = 2000
RESAMPLE_SEED: Final = 0

_MAPPING_TAKES: Final = 4
"""Coefficients of the cubic, which papers take off the rows it was fitted on (ITU-T P.1401)."""

_Vector = NDArray[np.float64]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Correlation = Annotated[float, Field(ge=-1.0, le=1.0)]
_Size = Annotated[float, Field(ge=0.0)]
_Count = Annotated[int, Field(ge=1)]


class _Record(OneFault, BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class SourceFigures(_Record):
    """One source's rows: PLCC, None where it is undefined, and RMSE in the target's unit."""

    n_rows: _Count
    plcc: _Correlation | None
    rmse: _Size


class Figures(_Record):
    """How one predictor agrees with the target; `reasons` says why a figure is None."""

    n_rows: _Count
    plcc: _Correlation | None
    srocc: _Correlation | None
    krocc: _Correlation | None
    rmse: _Size
    rmse_in_sample: _Size | None
    rmse_star: _Size | None
    outlier_ratio: Annotated[float, Field(ge=0.0, le=1.0)] | None
    mean_within_plcc: _Correlation | None
    worst_plcc_source: str | None
    worst_rmse_source: str
    by_source: dict[str, SourceFigures]
    reasons: dict[str, str]


class Ends(_Record):
    """The ends of an interval, or None with the reason why there is none."""

    low: float | None
    high: float | None
    reason: str | None


class Gain(_Record):
    """The RMSE of a baseline less that of the model, with sources as the unit of its intervals.

    `beats` says that the bootstrap's interval lies above 0, `jackknife_agrees` that the jackknife
    says the same of its own.
    """

    model_rmse: _Size
    baseline_rmse: _Size
    rmse_gain: float
    level: Annotated[float, Field(gt=0, lt=1)]
    n_sources: _Count
    bootstrap: Ends
    jackknife: Ends
    beats: bool
    jackknife_agrees: bool


class Panels(_Record):
    """How two panels agree on the clips that both rated, and what that leaves for a model."""

    panels: tuple[str, str]
    n_clips: _Count
    plcc: _Correlation | None
    rmse: _Size
    plcc_ceiling: _Correlation | None
    rmse_floor: _Size
    reason: str | None


class BaselinesFile(_Record):
    """What `baselines.json` holds: figures and gains by unit, frame or clip, and by name."""

    schema_version: Literal[1] = 1
    corpus_sha256: _Sha256
    seeds: tuple[Annotated[int, Field(ge=0)], ...]
    predictions: dict[int, _Sha256]
    target: str
    unit: Literal["frame", "clip"]
    mapping: Literal["none", "cubic without the held-out source"]
    sources: tuple[str, ...]
    excluded_sources: tuple[str, ...]
    resamples: _Count
    resample_seed: Annotated[int, Field(ge=0)]
    half_width_from: tuple[str, ...]
    ridge_penalty: dict[str, _Size]
    figures: dict[str, dict[str, Figures]]
    gains: dict[str, dict[str, Gain]]
    not_computed: dict[str, str]
    panels_told_apart_by: tuple[str, ...]
    panels: tuple[Panels, ...]

    def speaks_of(self, corpus_sha256: str | None, predictions: Mapping[int, str]) -> bool:
        """Tell whether it was made from just these predictions, by hash, of that corpus."""
        return self.corpus_sha256 == corpus_sha256 and self.predictions == dict(predictions)


def on_scale(target: str, y_true: _Vector, y_pred: _Vector, source: NDArray[np.str_]) -> _Vector:
    """Return out-of-fold predictions as they are judged, mapped without the held-out source.

    Those of VMAF are judged as they are: model and target share its scale.
    """
    return map_out_of_fold(y_true, y_pred, source) if is_mapped(target) else y_pred


def measure_figures(
    target: str,
    y_true: _Vector,
    y_pred: _Vector,
    source: NDArray[np.str_],
    half_width: _Vector | None = None,
) -> Figures:
    """Return the figures of out-of-fold predictions, mapped first where `is_mapped`.

    `half_width` is half of each score's 95 % interval, in the target's unit. `rmse_in_sample` is
    what papers report: after one mapping fitted on all rows, divided by their number less 4.
    """
    judged = on_scale(target, y_true, y_pred, source)
    found = measure_agreement(y_true, judged, source)
    beyond = outliers = in_sample = None
    if half_width is not None:
        beyond = rmse_star(y_true, judged, ci95=half_width)
        outliers = outlier_ratio(y_true, judged, ci95=half_width)
    if is_mapped(target) and len(y_true) > _MAPPING_TAKES:
        fitted = map_in_sample(y_true, y_pred)
        in_sample = rmse(y_true, fitted, degrees_of_freedom=_MAPPING_TAKES)
    correlations = {
        "plcc": found.plcc,
        "srocc": found.srocc,
        "krocc": found.krocc,
        "mean_within_plcc": found.mean_within_plcc,
    }
    return Figures(
        n_rows=found.n_rows,
        rmse=found.rmse,
        rmse_in_sample=in_sample,
        rmse_star=beyond,
        outlier_ratio=outliers,
        worst_plcc_source=found.worst_plcc.source if found.worst_plcc else None,
        worst_rmse_source=found.worst_rmse.source,
        by_source={
            own.source: SourceFigures(n_rows=own.n_rows, plcc=own.plcc.value, rmse=own.rmse)
            for own in found.by_source
        },
        reasons={name: each.reason for name, each in correlations.items() if each.reason},
        **{name: each.value for name, each in correlations.items()},
    )


def paired_gain(
    target: str,
    y_true: _Vector,
    y_pred: _Vector,
    y_baseline: _Vector,
    source: NDArray[np.str_],
) -> Gain:
    """Return how much closer to the target out-of-fold predictions are than those of a baseline.

    Both are mapped first where `is_mapped`. Mappings are not fitted again in resamples: with one
    source more or less they hardly move.
    """
    judged, beside = (on_scale(target, y_true, y, source) for y in (y_pred, y_baseline))
    return gain_on_scale(y_true, judged, beside, source)


def gain_on_scale(
    y_true: _Vector, judged: _Vector, beside: _Vector, source: NDArray[np.str_]
) -> Gain:
    """Return how much closer `judged` is to the target than `beside`, both as they are judged."""
    gain = rmse_gain_by_source(y_true, judged, beside, source)
    drawn = bootstrap(gain, level=LEVEL, n_resamples=RESAMPLES, seed=RESAMPLE_SEED)
    left_out = jackknife(gain, level=LEVEL)
    model_rmse, baseline_rmse = rmse(y_true, judged), rmse(y_true, beside)
    return Gain(
        model_rmse=model_rmse,
        baseline_rmse=baseline_rmse,
        rmse_gain=baseline_rmse - model_rmse,
        level=LEVEL,
        n_sources=gain.n_sources,
        bootstrap=_ends(drawn),
        jackknife=_ends(left_out),
        beats=beats(drawn),
        jackknife_agrees=beats(drawn) == beats(left_out),
    )


def _ends(found: Resampled) -> Ends:
    return Ends(low=found.low, high=found.high, reason=found.reason)


def write_baselines(path: Path, baselines: BaselinesFile) -> None:
    """Write `baselines` as JSON, atomically; the same baselines give the same bytes."""
    write_json(path, baselines.model_dump(mode="json"))


def parse_baselines(content: bytes, path: Path) -> BaselinesFile:
    """Return the record in `content`, which came from `path`; BadEvidence where it is none."""
    fix = f"remove the file, or compute it again (loso ablate {path.parent})"
    return parse_record(BaselinesFile, content, path, refusal=BadEvidence, fix=fix)
