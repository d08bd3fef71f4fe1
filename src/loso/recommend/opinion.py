"""A model's opinion of a clip: what cannot be measured, such as MOS, from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from loso.corpus.plan import Cell, rows_of
from loso.errors import BadSettings
from loso.intervals import CLIP
from loso.model.feed import require_columns
from loso.predict import MEASURED, Predictor
from loso.recommend.curve import Curve
from loso.recommend.grids import RunGrounds
from loso.recommend.judge import METRICS, PLACES, Judge, Score
from loso.schema import VMAF_RANGE
from loso.video.measure import Measurement

__all__ = ["ModelJudge"]

_COLUMNS: Final = (*MEASURED, "vmaf", "enc_bytes", "rate_control")
"""What an encode of a clip can give."""


@dataclass(frozen=True)
class ModelJudge(Judge):
    """An ensemble scores an encode of a clip, with the lower end of its interval over sources.

    BadSettings for a level that it has no intervals of, BadInput for a model of other features than
    those that an encode gives.
    """

    predictor: Predictor
    pool: str
    asked_level: float | None = None
    grounds: RunGrounds | None = None
    """Where they are given, choices are bounded by them in the place of the model's intervals."""

    def __post_init__(self) -> None:
        if self.grounds is None:
            self.predictor.interval_of(self.asked_level)
        require_columns(self.predictor.model.inputs, _COLUMNS)

    @property
    def name(self) -> str:
        """What the model's target is called."""
        return self.predictor.manifest.target

    @property
    def digits(self) -> int:
        """Three figures or so of the target's range."""
        low, high = self._range or VMAF_RANGE
        return 2 if high - low > 1.0 else 4

    @property
    def prior(self) -> Curve:
        """VMAF's usual curve, stretched over the target's range."""
        low, high = self._range or VMAF_RANGE
        usual = np.array(METRICS["vmaf"].usual) / VMAF_RANGE[1]
        return Curve(np.array(PLACES), low + (high - low) * usual)

    @property
    def evidence(self) -> str:
        """The sources behind the model's intervals."""
        if self.level is None:
            return "scored by a model without intervals: nothing says how far it is off"
        return f"scored by the model, interval: {self.predictor.interval_of(self.asked_level)[1]}"

    @property
    def level(self) -> float | None:
        """The level of the model's intervals, None where they are not what a choice rests on."""
        return None if self.grounds else self.predictor.interval_of(self.asked_level)[0]

    @property
    def promises(self) -> bool:
        """Whether the model has intervals, or its run says how choices went."""
        return self.grounds is not None or self.level is not None

    def score(self, measured: Sequence[tuple[Cell, Measurement]], *, is_cut: bool) -> Score:
        """Return the model's score of the clip, pooled as the model's intervals are."""
        rows = pl.DataFrame(_rows(measured, is_cut=is_cut), infer_schema_length=None)
        level = None if self.grounds else self.asked_level
        prediction = self.predictor.predict(rows, level=level)
        (clip,) = prediction.clips.iter_rows(named=True)
        of_pool = "" if self.predictor.model.unit == CLIP else f"{self.pool}_"
        value, lower = clip[f"{of_pool}mu"], clip[f"{of_pool}lower"]
        if self.grounds is not None or lower is None:
            lower = value
        return Score(value, lower, (*prediction.warnings, *self._known(measured[0][0].clip.src)))

    def _known(self, src: str) -> tuple[str, ...]:
        """Return the warning for a clip that the model was trained on."""
        if src not in (self.predictor.manifest.training_sources or {}):
            return ()
        return ("the model was trained on a source of that name: no interval is meant for it",)

    def refuse_target(self, target: float) -> None:
        """Refuse, as BadSettings, a target outside of what the model's target can be."""
        if self._range is None:
            return
        low, high = self._range
        if not low < target <= high:
            raise BadSettings(
                f"no clip can be held to that {self.name}",
                where="--target",
                expected=f"above {low:g}, at most {high:g}",
                found=f"{target:g}",
            )

    @property
    def _range(self) -> tuple[float, float] | None:
        manifest = self.predictor.manifest
        if manifest.target_range is None and manifest.target == "vmaf":
            return VMAF_RANGE
        return manifest.target_range or manifest.target_seen


def _rows(measured: Sequence[tuple[Cell, Measurement]], *, is_cut: bool) -> list[dict[str, Any]]:
    """Return a row for each frame; those of several segments as the rows of one clip.

    The first frame of each segment is left out, as it has no motion before it. Bitrate and size are
    those of all segments together.
    """
    if not is_cut:
        return rows_of(*measured[0])
    cell = measured[0][0]
    coded_bytes = sum(sum(each.packet_bytes) for _, each in measured)
    frames = sum(cell.clip.frames for cell, _ in measured)
    kbps = float(coded_bytes * 8 * cell.clip.fps / frames) / 1000
    shared = {"enc_bytes": coded_bytes, "bitrate_kbps": round(kbps, 3)}
    kept = [row for one in measured for row in rows_of(*one)[1:]]
    return [{**row, **shared, "frame_index": at} for at, row in enumerate(kept, start=1)]
