"""What a person should look at: figures of the predictions; on failure, where and what to try."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import fmean, median, stdev
from typing import Any, Final

import polars as pl

from loso.baselines import RIDGE, BaselinesFile, Gain
from loso.evidence import Evidence
from loso.gate import Advice, GateReport, mean_per_fold
from loso.schema import ENCODER_VOCAB

__all__ = [
    "advise_on_baselines",
    "advise_on_predictions",
    "advise_on_sources",
    "diagnose",
    "failed_limits",
]

_LEVEL: Final = 0.95
_LEAST_SOURCES: Final = 3
"""Two sources give a t interval with one degree of freedom, 12.7 standard errors to each side."""


def advise_on_sources(evidence: Evidence) -> tuple[Advice, ...]:
    """Return the lower end of a 95 % confidence interval of the mean PLCC over sources.

    The unit is the source, since rows of one source are not independent: a jackknife that leaves
    one source out of the mean, with Student's t at K-1 degrees of freedom (Tukey 1958; for
    clusters, MacKinnon, Nielsen and Webb 2023, Stata Journal 23). Of K values its standard error
    is s / sqrt(K), s with ddof=1, so the interval is mean +- t * s / sqrt(K), cut to -1..1. Folds
    share training rows, and no estimate of their mean's variance is free of bias for that (Bengio
    and Grandvalet 2004). Fewer than three sources give nothing.
    """
    plccs = list(mean_per_fold(evidence, "plcc").values())
    count = len(plccs)
    if count < _LEAST_SOURCES:
        return ()
    from scipy.special import stdtrit

    mean = fmean(plccs)
    half = float(stdtrit(count - 1, (1 + _LEVEL) / 2)) * stdev(plccs) / math.sqrt(count)
    low, high = max(mean - half, -1.0), min(mean + half, 1.0)
    note = f"{_LEVEL:.0%} interval {low:.4f}..{high:.4f} of the mean over {count} sources"
    return (Advice("mean_plcc_interval_low", low, note),)


def advise_on_predictions(predictions: Mapping[int, pl.DataFrame]) -> tuple[Advice, ...]:
    """Return advisory figures that need the rows: unseen encoders, and scores that rise with cq.

    `predictions` holds one table of the same rows for each seed.
    """
    if not predictions:
        return ()
    tables = list(predictions.values())
    mean = pl.mean_horizontal(*(table["y_pred"].alias(f"{i}") for i, table in enumerate(tables)))
    rows = tables[0].with_columns(y_pred=pl.select(mean).to_series())
    return (*_encoders_without_rows(rows), *_rises_with_cq(rows))


def _encoders_without_rows(rows: pl.DataFrame) -> Iterator[Advice]:
    seen = set(rows["encoder"])
    absent = [name for name in ENCODER_VOCAB if name not in seen and name != "unknown"]
    if absent:
        yield Advice(
            "encoders_without_rows",
            len(absent),
            f"the model has learnt nothing about {', '.join(absent)}",
        )


def _rises_with_cq(rows: pl.DataFrame) -> Iterator[Advice]:
    """Yield the share of encodes that score above the same source's next better setting.

    A larger cq is cheaper and cannot look better. Frames are averaged first, and so are encodes of
    one source, encoder, preset and cq; a `clip` names one encode, so it cannot tell a ladder.
    """
    ladder = ["src", "encoder", *(["preset"] if "preset" in rows.columns else [])]
    encodes = (
        rows.group_by([*ladder, "cq"])
        .agg(pl.col("y_true", "y_pred").mean())
        .sort([*ladder, "cq"])
        .with_columns(pl.col("y_true", "y_pred").diff().over(ladder))
        .drop_nulls("y_pred")
    )
    if encodes.height:
        predicted, measured = (int((encodes[name] > 0).sum()) for name in ("y_pred", "y_true"))
        yield Advice(
            "rises_with_cq",
            predicted / encodes.height,
            f"{predicted} of {encodes.height} steps to a cheaper cq raise the predicted score, "
            f"{measured} the measured one",
        )


def advise_on_baselines(baselines: BaselinesFile | None) -> tuple[Advice, ...]:
    """Return how much closer to the target than a ridge regression the model is."""
    if baselines is None:
        return ()
    gain = baselines.gains[baselines.unit][RIDGE]
    note = f"RMSE of a ridge on the same inputs less that of the model: {_gain_text(gain)}"
    return (Advice("gain_over_ridge", gain.rmse_gain, note),)


def failed_limits(report: GateReport) -> list[str]:
    """Return one clause for each limit of the gate that does not hold."""
    failed = []
    if not report.mean_plcc_pass:
        limit = report.mean_plcc_threshold
        failed.append(f"mean PLCC {report.mean_plcc:.4f} is below {limit:.4f}")
    if not report.plcc_spread_pass:
        limit = report.plcc_spread_max
        failed.append(f"spread between seeds {report.plcc_spread:.4f} is above {limit:.4f}")
    if not report.per_seed_pass:
        seeds = (f"{seed} ({report.per_seed_plccs[seed]:.4f})" for seed in report.failing_seeds)
        failed.append(f"seeds below {report.per_seed_min:.4f}: {', '.join(seeds)}")
    gain = report.gain_over_vmaf
    if gain is not None and not gain.beats:
        failed.append(
            f"RMSE {gain.model_rmse:.4g} does not beat that of the VMAF column, "
            f"{gain.baseline_rmse:.4g}: gain {_gain_text(gain)}"
        )
    return failed


def _gain_text(gain: Gain) -> str:
    ends = gain.bootstrap
    if ends.low is None:
        return f"{gain.rmse_gain:.4g}, no interval ({ends.reason})"
    return f"{gain.rmse_gain:.4g}, {gain.level:.0%} interval {ends.low:.4g}..{ends.high:.4g}"


def diagnose(evidence: Evidence, report: GateReport) -> dict[str, Any]:
    """Return what failed, the fold and the seed that score lowest, and what to try.

    Keys `failed` and `try` hold sentences (none where the gate passed), `worst_fold` the held-out
    source and its mean PLCC over seeds (null where the seed files hold no folds), `worst_seed` the
    seed and its mean PLCC.
    """
    folds, seeds = mean_per_fold(evidence, "plcc"), report.per_seed_plccs
    fold, seed = min(folds, key=folds.__getitem__, default=None), min(seeds, key=seeds.__getitem__)
    return {
        "failed": failed_limits(report),
        "worst_fold": None if fold is None else {"held_out": fold, "mean_plcc": folds[fold]},
        "worst_seed": {"seed": seed, "mean_plcc": seeds[seed]},
        "try": [] if report.passed else list(_advice(evidence, report, folds)),
    }


def _advice(evidence: Evidence, report: GateReport, folds: Mapping[str, float]) -> Iterator[str]:
    if folds and not (report.mean_plcc_pass and report.per_seed_pass):
        worst = min(folds, key=folds.__getitem__)
        others = fmean(plcc for source, plcc in folds.items() if source != worst)
        if others >= report.mean_plcc_threshold:
            yield (
                f"{worst} alone drags: without it the mean is {others:.4f}. Look at its rows (a "
                "wrong reference or frame rate shows there), then add sources that resemble it"
            )
        else:
            yield (
                f"no single source explains it: without {worst}, the worst, the mean is "
                f"{others:.4f}. Add sources, encoders and qualities, or train for more epochs"
            )
    if not report.plcc_spread_pass:
        middle = median(report.per_seed_plccs.values())
        apart = {seed: abs(plcc - middle) for seed, plcc in report.per_seed_plccs.items()}
        seed = max(apart, key=apart.__getitem__)
        yield (
            f"seed {seed} ({report.per_seed_plccs[seed]:.4f}) stands apart from the middle one "
            f"({middle:.4f}){_where_seeds_differ(evidence)}. Train for more epochs or with a "
            "smaller learning rate; leaving the seed out would only hide it"
        )
    if report.gain_over_vmaf is not None and not report.gain_over_vmaf.beats:
        yield (
            "VMAF alone, mapped to the target, does as well: see with loso ablate what each input "
            "is worth, then add inputs that VMAF lacks (--condition), or more rated sources"
        )
    if not folds:
        yield "train again with loso train: these seed files hold no folds that could be examined"


def _where_seeds_differ(evidence: Evidence) -> str:
    plccs: dict[str, list[float]] = {}
    for file in evidence.seed_files.values():
        for fold in file.folds:
            if fold.plcc is not None:
                plccs.setdefault(fold.held_out, []).append(fold.plcc)
    ranges = {source: max(values) - min(values) for source, values in plccs.items()}
    if not ranges:
        return ""
    source = max(ranges, key=ranges.__getitem__)
    return f"; seeds differ most on {source}, by {ranges[source]:.4f}"
