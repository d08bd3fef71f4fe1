"""What `sweep.json` holds: recipes, which of them each source is judged by, what that is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from loso.baselines import Gain
from loso.files import write_json
from loso.records import OneFault

__all__ = [
    "SWEEP_FILE",
    "FoldChoice",
    "SourceScore",
    "SweepFigures",
    "SweepFile",
    "SweptRecipe",
    "write_sweep",
]

SWEEP_FILE: Final = "sweep.json"

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Correlation = Annotated[float, Field(ge=-1.0, le=1.0)]
_Size = Annotated[float, Field(ge=0.0)]
_Count = Annotated[int, Field(ge=0)]


class _Record(OneFault, BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class SweptRecipe(_Record):
    """A recipe that took part: its settings of what varies, its cost and who chose it.

    `plain_score` is what a choice over all sources goes by, None with the reason where there is
    none.
    """

    settings: dict[str, Any]
    cost: _Count
    plain_score: float | None
    chosen_by: tuple[str, ...]
    reason: str | None


class FoldChoice(_Record):
    """What one held-out source's networks are made by, chosen without it.

    `scores` has what the choice went by for each recipe, None with the reason in `reasons` (by the
    recipe's number as text) where there is none. `runner_up` is the second best.
    """

    held_out: str
    chosen: _Count
    runner_up: _Count | None
    scores: tuple[float | None, ...]
    reasons: dict[str, str]


class SourceScore(_Record):
    """How the ensemble predicts one source's rows; a correlation is None where undefined."""

    n_rows: _Count
    plcc: _Correlation | None
    srocc: _Correlation | None
    rmse: _Size
    reason: str | None


class SweepFigures(_Record):
    """How ensembles predict sources that they have not seen: means over them, and rows pooled.

    `recipe` is its number, None where each source has one of its own. A mean over an undefined
    correlation is None.
    """

    recipe: _Count | None
    mean_plcc: _Correlation | None
    mean_srocc: _Correlation | None
    mean_rmse: _Size
    pooled_plcc: _Correlation | None
    pooled_srocc: _Correlation | None
    pooled_rmse: _Size
    by_source: dict[str, SourceScore]


class SweepFile(_Record):
    """What `sweep.json` holds; recipes are counted from 0 in the order of the grid."""

    schema_version: Literal[1] = 1
    corpus_sha256: _Sha256
    target: str
    unit: Literal["frame", "clip"]
    mapping: Literal["none", "cubic without the held-out source"]
    by: Literal["rmse", "plcc"]
    seeds: tuple[_Count, ...]
    choosing_seed: _Count
    engine: str
    versions: dict[str, str]
    sources: tuple[str, ...]
    excluded_sources: tuple[str, ...]
    judged_sources: tuple[str, ...]
    n_pairs: _Count
    n_pairs_possible: _Count
    capped: bool
    base: dict[str, Any]
    varied: tuple[str, ...]
    recipes: tuple[SweptRecipe, ...]
    folds: tuple[FoldChoice, ...]
    usual: _Count
    chosen: _Count
    nested: SweepFigures
    flattered: SweepFigures
    as_usual: SweepFigures | None
    as_usual_reason: str | None
    gain_over_usual: Gain | None
    flattery_rmse: float
    flattery_plcc: float | None


def write_sweep(path: Path, sweep: SweepFile) -> None:
    """Write `sweep` as JSON, atomically; the same sweep gives the same bytes."""
    write_json(path, sweep.model_dump(mode="json"))
