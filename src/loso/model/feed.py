"""Rows of any origin become what a model is fed: checked, typed, averaged by clip as in training.

Frames that are scored one by one stay as they are; with clips as the unit a row is one encode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.corpus.load import Corpus, with_bits_per_pixel
from loso.corpus.rows import identity_of
from loso.corpus.units import as_clips
from loso.errors import BadInput
from loso.inputs import NEUTRAL, block_names, feature_names, input_matrix, read_columns
from loso.model.opening import OpenModel
from loso.recipe import InputSpec
from loso.schema import CODEC_BLOCK_COLUMNS, ENCODER_VOCAB

__all__ = ["REMEASURE", "Feed", "make_feed", "require_columns"]

REMEASURE: Final = "measure the row again, or drop it"

_LARGEST: Final = 1e12
"""Far above any feature, and float32 holds what standardising makes of it."""

_WHERE: Final = "the rows"
_BITS: Final = "bits_per_pixel"
_BITS_NEED: Final = ("bitrate_kbps", "fps", "height")


@dataclass(frozen=True)
class Feed:
    """Rows as a model takes them, what names each, and their raw inputs (rows, inputs).

    `values` has those of each input that has a range in training, `cq` last. With clips as the
    unit, `rows` says in `n_frames` how many were averaged. `warnings` say what was assumed.
    """

    rows: pl.DataFrame
    names: tuple[str, ...]
    matrix: NDArray[np.float64]
    values: Mapping[str, NDArray[np.float64]]
    warnings: tuple[str, ...]


def require_columns(spec: InputSpec, columns: Sequence[str], key: Sequence[str] = ()) -> None:
    """Refuse rows that lack columns which a model of `spec` reads, or those of `key`.

    `bits_per_pixel` is derived where bitrate, rate and height are there.
    """
    needed = dict.fromkeys([*read_columns(spec), "cq", "encoder", *key])
    if spec.drop_first_frame:
        needed["frame_index"] = None
    if _BITS in needed and all(name in columns for name in _BITS_NEED):
        del needed[_BITS]
    missing = [name for name in needed if name not in columns]
    if not missing:
        return
    fix = "measure them with libvmaf, or rename the columns"
    if set(missing) - {*spec.features.columns, "cq", "encoder", "frame_index"}:
        fix = "add them to every row, or give one value for all with --set COL=VALUE"
    if _BITS in missing:
        fix += f"; {_BITS} follows from {', '.join(_BITS_NEED)}"
    raise BadInput(
        f"missing columns: {', '.join(missing)}",
        where=_WHERE,
        found=", ".join(columns[:40]) or "none",
        fix=fix,
    )


def make_feed(
    model: OpenModel, frame: pl.DataFrame, key: Sequence[str] = (), also: Sequence[str] = ()
) -> Feed:
    """Return what `model` is fed of rows; `also` names columns of numbers to be carried along.

    A clip is what the identity of its rows names, with the columns of `key` and the one that
    training grouped by, where it is there. BadInput names the first value that cannot be used.
    """
    spec = model.inputs
    rows, notes = _typed(frame, spec, key, also)
    if spec.group_by in rows.columns:
        key = tuple(dict.fromkeys([*key, spec.group_by]))
    names = identity_of(rows.columns, key)
    notes += _shared_names(rows, names)
    if model.unit == "clip":
        rows, names = _clips(rows, spec, key), tuple(n for n in names if n != "frame_index")
    elif spec.drop_first_frame:
        rows, left_out = _without_first_frames(rows)
        notes += left_out
    matrix, warnings = input_matrix(rows, spec, model.cq_range, _WHERE)
    inputs = (*feature_names(spec), *block_names(spec))
    values = {
        name: matrix[:, i] for i, name in enumerate(inputs) if name not in CODEC_BLOCK_COLUMNS
    }
    preset = inputs.index("preset_norm")
    return Feed(
        rows=rows,
        names=names,
        matrix=matrix,
        values={**values, "cq": rows["cq"].cast(pl.Float64).to_numpy()},
        warnings=(*notes, *_presets(model, rows, matrix[:, preset], warnings), *_strangers(rows)),
    )


def _presets(
    model: OpenModel, rows: pl.DataFrame, preset_norm: NDArray[np.float64], warnings: Sequence[str]
) -> tuple[str, ...]:
    """Put the one preset that training saw into `preset_norm`; return what to tell of presets."""
    constant = model.preset_constant
    if constant is None:
        if "preset" in rows.columns:
            return tuple(warnings)
        none = f"training saw several presets and rows record none: {NEUTRAL} is fed"
        return (*warnings, none)
    other = int(np.sum(preset_norm != constant)) if "preset" in rows.columns else 0
    preset_norm[:] = constant
    fed = f"training saw one preset, so its preset_norm {constant:g} is fed throughout"
    return (f"{fed}; {other} of {rows.height} rows record another",) if other else ()


def _strangers(rows: pl.DataFrame) -> tuple[str, ...]:
    counts = Counter(rows["encoder"])
    strange = sorted(set(counts) - set(ENCODER_VOCAB))
    if not strange:
        return ()
    listed = ", ".join(f"{name} {counts[name]}" for name in strange)
    return (f"encoders outside the vocabulary take its slot unknown; rows of each: {listed}",)


def _shared_names(rows: pl.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    if rows.height < 2 or "frame_index" not in names:
        return ()
    if not rows[list(names)].is_duplicated().any():
        return ()
    return (
        "rows share their " + ", ".join(names) + ": clips that these do not tell apart are "
        "pooled as one; add src or clip",
    )


def _clips(rows: pl.DataFrame, spec: InputSpec, key: Sequence[str]) -> pl.DataFrame:
    """Return a row for each clip, made of its frames just as training made it."""
    if "frame_index" not in rows.columns:
        rows = rows.with_columns(frame_index=pl.lit(0, dtype=pl.Int64))
    clips = as_clips(
        Corpus(Path(_WHERE), "", rows, {}, (), tuple(key)),
        spec.features.columns,
        statistics=spec.statistics,
        drop_first_frame=spec.drop_first_frame,
    ).rows
    return clips.drop("frame_index")


def _without_first_frames(rows: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    kept = rows.filter(pl.col("frame_index") > 0)
    if kept.is_empty():
        raise BadInput(
            "no frame but frame 0, which this model does not score",
            where=_WHERE,
            fix="measure more frames",
        )
    lost = rows.height - kept.height
    if not lost:
        return kept, ()
    return kept, (f"{lost} rows of frame 0 are left out, as training left them out",)


def _kept_type(kind: pl.DataType, name: str) -> type[pl.Int64 | pl.Float64]:
    """Return what a number is computed with; `cq`, which names a row too, may stay whole."""
    return pl.Int64 if name == "cq" and kind.is_integer() else pl.Float64


def _typed(
    frame: pl.DataFrame, spec: InputSpec, key: Sequence[str], also: Sequence[str]
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return the columns in use, typed; BadInput names the first value that cannot be used."""
    require_columns(spec, frame.columns, key)
    if frame.is_empty():
        raise BadInput("holds no rows", where=_WHERE, expected="at least one")
    notes: tuple[str, ...] = ()
    if _BITS in read_columns(spec):
        frame, notes = with_bits_per_pixel(frame)
    # Where it could not be derived, one of what it follows from is no number, and is refused.
    origins = () if _BITS in {*frame.columns} or _BITS not in read_columns(spec) else _BITS_NEED
    numbers = tuple(dict.fromkeys([*origins, *read_columns(spec), "cq", *also]))
    texts = [name for name in ("src", "encoder", "preset", "clip") if name in frame.columns]
    names = [n for n in ("frame_index", *key, spec.group_by) if n in frame.columns]
    others = [name for name in dict.fromkeys(names) if name not in {*texts, *numbers}]
    for name in (*texts, *numbers, *others):
        kind = frame[name].dtype
        wrong = kind.is_nested() or (name in numbers and not kind.is_numeric())
        wrong |= name == "frame_index" and spec.drop_first_frame and not kind.is_numeric()
        if wrong or (name == "encoder" and kind.is_numeric()):
            raise BadInput(f"{name} has the wrong type", where=_WHERE, found=str(kind))
    for name in (*numbers, "encoder"):
        if name in numbers:  # a null becomes NaN, and lies nowhere
            bad = ~(np.abs(frame[name].cast(pl.Float64).to_numpy()) <= _LARGEST)
        else:
            bad = frame[name].is_null().to_numpy()
        if bad.any():
            at = int(bad.argmax())
            raise BadInput(
                f"{name} has no value that can be scored",
                where=f"row {at + 1}",
                found=f"{frame[name][at]}",
                fix=REMEASURE,
            )
    typed = [
        *(frame[name].cast(pl.String) for name in texts),
        *(frame[name].cast(_kept_type(frame[name].dtype, name)) for name in numbers),
        *(frame[name] for name in others),
    ]
    return pl.DataFrame(typed), notes
