"""A trained run gets its baselines: what VMAF, a ridge and networks with fewer inputs would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from loso.baselines import (
    MODEL,
    RESAMPLE_SEED,
    RESAMPLES,
    RIDGE,
    VMAF,
    WITHOUT_CODEC_BLOCK,
    WITHOUT_CONDITIONS,
    BaselinesFile,
    Panels,
    measure_figures,
    paired_gain,
    parse_baselines,
    write_baselines,
)
from loso.calibration import OpenedRun, clip_numbers, open_run
from loso.corpus.load import Corpus
from loso.crossval import fit_and_predict
from loso.engine import choose
from loso.errors import BadEvidence
from loso.evidence import collect_evidence
from loso.files import read_file
from loso.folds import leave_one_source_out
from loso.inputs import build_inputs
from loso.locks import folder_lock
from loso.metrics import ci95_of_votes, panel_agreement
from loso.progress import Progress, silent
from loso.recipe import DEFAULT_SEEDS, Compute, InputSpec, Recipe, check_seeds, is_mapped
from loso.ridge import ridge_out_of_fold
from loso.run_folder import BASELINES_FILE

__all__ = ["ablate_run", "standing_baselines"]

_PURPOSE: Final = "hold against baselines"
_NOT_ASKED: Final = "it takes training: loso ablate does that"

_Vector = NDArray[np.float64]


def ablate_run(
    run_dir: Path,
    corpus: Corpus,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    *,
    networks: bool = True,
    compute: Compute | None = None,
    progress: Progress = silent,
) -> BaselinesFile:
    """Return a trained run's baselines, which stand in its `baselines.json` from now on.

    Without `networks` nothing is trained, and the record says what it lacks for that. BadEvidence
    where the run cannot be judged or is not of `corpus`; nothing is written then. Busy where
    another process works in the folder.
    """
    run_dir, compute, seeds = Path(run_dir), compute or Compute(), check_seeds(seeds)
    choose(compute.engine, compute.device)
    # Before the lock: a refusal leaves no trace in a folder that is none.
    collect_evidence(run_dir, seeds)
    with folder_lock(run_dir, "baselines"):
        opened = open_run(run_dir, corpus, seeds, _PURPOSE)
        recipe, rows, y_true = opened.recipe, opened.seen.rows, opened.inputs.target
        source = rows["src"].to_numpy()
        ridge = ridge_out_of_fold(opened.inputs.matrix, y_true, source)
        predicted = {MODEL: opened.out_of_fold.mean(axis=0), RIDGE: ridge.y_pred}
        not_computed = {}
        if is_mapped(recipe.target):
            predicted[VMAF] = rows["vmaf"].to_numpy()
        else:
            not_computed[VMAF] = "it is the target"
        for name, spec in _fewer_inputs(recipe.inputs).items():
            if isinstance(spec, str):
                not_computed[name] = spec
            elif not networks:
                not_computed[name] = _NOT_ASKED
            else:
                fewer = replace(recipe, inputs=spec)
                predicted[name] = _retrained(opened, fewer, compute, progress, name)
        half_width, columns, reason = _half_width(rows, recipe.target)
        if reason:
            not_computed["rmse_star"] = not_computed["outlier_ratio"] = reason
        by_unit = {recipe.unit: (y_true, source, half_width, predicted)}
        if recipe.unit == "frame":
            by_unit["clip"] = _of_clips(clip_numbers(opened.seen), *by_unit["frame"])
        evidence = opened.evidence
        told_apart = corpus.key if is_mapped(recipe.target) else ()
        baselines = BaselinesFile(
            corpus_sha256=corpus.sha256,
            seeds=tuple(evidence.seed_files),
            predictions=dict(evidence.predictions_sha256),
            target=recipe.target,
            unit=recipe.unit,
            mapping="cubic without the held-out source" if is_mapped(recipe.target) else "none",
            sources=opened.seen.sources,
            excluded_sources=evidence.excluded_sources,
            resamples=RESAMPLES,
            resample_seed=RESAMPLE_SEED,
            half_width_from=columns,
            ridge_penalty=dict(zip(opened.seen.sources, ridge.penalty, strict=True)),
            figures={
                unit: {
                    name: measure_figures(recipe.target, true, own, of_row, half)
                    for name, own in predictions.items()
                }
                for unit, (true, of_row, half, predictions) in by_unit.items()
            },
            gains={
                unit: {
                    name: paired_gain(recipe.target, true, predictions[MODEL], own, of_row)
                    for name, own in predictions.items()
                    if name != MODEL
                }
                for unit, (true, of_row, _, predictions) in by_unit.items()
            },
            not_computed=not_computed,
            panels_told_apart_by=told_apart,
            panels=_panels(opened.seen, told_apart, recipe.target),
        )
        write_baselines(run_dir / BASELINES_FILE, baselines)
    return baselines


def standing_baselines(run_dir: Path, seeds: Sequence[int]) -> BaselinesFile | None:
    """Return the baselines in a run's folder where they are of these seeds as they stand there.

    None where there are none, where the file is damaged and where it speaks of other predictions.
    BadEvidence where the run cannot be judged.
    """
    evidence, path = collect_evidence(Path(run_dir), seeds), Path(run_dir) / BASELINES_FILE
    try:
        found = parse_baselines(read_file(path), path)
    except (OSError, BadEvidence):
        return None
    record = next(iter(evidence.seed_files.values()))
    return found if found.speaks_of(record.corpus_sha256, evidence.predictions_sha256) else None


def _fewer_inputs(spec: InputSpec) -> dict[str, InputSpec | str]:
    """Return what each ablated network reads, or why there is no such network."""
    return {
        WITHOUT_CODEC_BLOCK: replace(spec, codec_block=False)
        if spec.codec_block
        else "the recipe has no codec block",
        WITHOUT_CONDITIONS: replace(spec, conditions=())
        if spec.conditions
        else "the recipe has no conditions",
    }


def _retrained(
    opened: OpenedRun, recipe: Recipe, compute: Compute, progress: Progress, name: str
) -> _Vector:
    """Return the ensemble's out-of-fold predictions by the run's seeds under another recipe."""

    def report(done: float, total: float, note: str = "") -> None:
        progress(done, total, ", ".join(filter(None, (name.replace("_", " "), note))))

    folds = leave_one_source_out(opened.seen.rows["src"].to_numpy())
    predicted, _ = fit_and_predict(
        build_inputs(opened.seen, recipe),
        folds,
        recipe,
        tuple(opened.evidence.seed_files),
        compute=compute,
        progress=report,
    )
    mean = np.empty(opened.seen.rows.height)
    for fold, *of_seeds in zip(folds, *predicted, strict=True):
        mean[fold.test] = np.mean(of_seeds, axis=0)
    return mean


def _half_width(rows: pl.DataFrame, target: str) -> tuple[_Vector | None, tuple[str, ...], str]:
    """Return half of each score's 95 % interval, the columns it came from, or why there is none."""
    ways = [(f"{target}_ci",), (f"{target}_std", f"{target}_n"), (f"{target}_std", "votes")]
    there = [names for names in ways if all(name in rows.columns for name in names)]
    if not there:
        wanted = ", ".join(" with ".join(names) for names in ways)
        return None, (), f"the corpus has none of {wanted}"
    names = there[0]
    if not all(_is_whole(rows[name]) for name in names):
        return None, (), f"{' or '.join(names)} has no usable number in some rows"
    values = [rows[name].cast(pl.Float64).to_numpy() for name in names]
    if len(values) == 1:
        return values[0], names, ""
    if values[1].min() < 1:
        return None, (), f"{names[1]} is below 1 in some rows"
    return ci95_of_votes(*values), names, ""


def _is_whole(column: pl.Series) -> bool:
    if not column.dtype.is_numeric():
        return False
    values = column.cast(pl.Float64)
    usable = values.is_finite() & (values >= 0)
    return not values.has_nulls() and bool(usable.all())


def _of_clips(
    clip: NDArray[np.int64],
    y_true: _Vector,
    source: NDArray[np.str_],
    half_width: _Vector | None,
    predicted: Mapping[str, _Vector],
) -> tuple[_Vector, NDArray[np.str_], _Vector | None, dict[str, _Vector]]:
    """Return the same of clips: means over their frames."""
    _, first, code, count = np.unique(
        clip, return_index=True, return_inverse=True, return_counts=True
    )

    def mean(values: _Vector) -> _Vector:
        means: _Vector = np.bincount(code, weights=values) / count
        return means

    return (
        mean(y_true),
        source[first],
        None if half_width is None else mean(half_width),
        {name: mean(values) for name, values in predicted.items()},
    )


def _panels(seen: Corpus, key: Sequence[str], target: str) -> tuple[Panels, ...]:
    """Return how panels agree that rated the same clips; the columns of `key` tell panels apart."""
    if not key:
        return ()
    names = [name for name in seen.identity if name not in {"frame_index", *key}]
    panel = pl.concat_str([pl.col(name).cast(pl.String) for name in key], separator="/")
    scores = (
        seen.rows.with_columns(panel=panel)
        .drop_nulls("panel")
        .group_by([*names, "panel"], maintain_order=True)
        .agg(pl.col(target).mean())
    )
    found = []
    for one, two in combinations(sorted(scores["panel"].unique()), 2):
        both = scores.filter(panel=one).join(
            scores.filter(panel=two), on=names, nulls_equal=True, maintain_order="left"
        )
        if both.height:
            agreed = panel_agreement(both[target], both[f"{target}_right"])
            found.append(
                Panels(
                    panels=(one, two),
                    n_clips=agreed.n_clips,
                    plcc=agreed.plcc.value,
                    rmse=agreed.rmse,
                    plcc_ceiling=agreed.plcc_ceiling.value,
                    rmse_floor=agreed.rmse_floor,
                    reason=agreed.plcc.reason or agreed.plcc_ceiling.reason,
                )
            )
    return tuple(found)
