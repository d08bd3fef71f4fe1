"""The ship gate: three limits on the seeds' mean PLCC over held-out sources. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from loso.errors import BadEvidence
from loso.evidence import Evidence
from loso.recipe import GateThresholds

if TYPE_CHECKING:
    from loso.baselines import Gain

__all__ = [
    "Advice",
    "GateReport",
    "Limit",
    "evaluate_gate",
    "limits",
    "margin_text",
    "mean_per_fold",
]


@dataclass(frozen=True)
class Advice:
    """A figure that stands beside the gate and does not change its answer."""

    check: str
    value: float
    note: str


@dataclass(frozen=True)
class GateReport:
    """What the gate found, with every limit it was held against.

    PLCC is in -1..1, best is 1. `plcc_spread` is the largest seed's less the smallest's.
    `gain_over_vmaf` is there where another target than VMAF was judged with its corpus at hand.
    """

    passed: bool
    mean_plcc: float
    mean_plcc_threshold: float
    mean_plcc_pass: bool
    plcc_spread: float
    plcc_spread_max: float
    plcc_spread_pass: bool
    per_seed_plccs: Mapping[int, float]
    per_seed_min: float
    per_seed_pass: bool
    failing_seeds: tuple[int, ...]
    advisory: tuple[Advice, ...] = ()
    gain_over_vmaf: Gain | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object, seeds as its strings."""
        report = asdict(self)
        del report["gain_over_vmaf"]
        if self.gain_over_vmaf is not None:
            report["gain_over_vmaf"] = self.gain_over_vmaf.model_dump(mode="json")
        return {
            **report,
            "per_seed_plccs": {str(seed): plcc for seed, plcc in self.per_seed_plccs.items()},
            "failing_seeds": list(self.failing_seeds),
            "advisory": [asdict(advice) for advice in self.advisory],
        }


def evaluate_gate(
    evidence: Evidence, thresholds: GateThresholds, gain_over_vmaf: Gain | None = None
) -> GateReport:
    """Return the gate's report: passed means that all three limits hold, and the gain if given.

    The mean over seeds, the difference between the best and the worst seed, and every single seed
    are held against `thresholds`, inclusive up to its tolerance. The order of seeds is irrelevant.
    A gain holds where its bootstrap interval lies above 0.
    BadEvidence for fewer than two seeds: one differs from none.
    """
    plccs = {}
    for seed, file in evidence.seed_files.items():
        if file.mean_plcc is None:
            raise BadEvidence(
                f"mean_plcc of seed {seed} is undefined", where=f"{evidence.loso_dir}"
            )
        plccs[seed] = file.mean_plcc
    if len(plccs) < 2:
        raise BadEvidence(
            "an ensemble needs at least two seeds, the spread of one says nothing",
            where=f"{evidence.loso_dir}",
            found=f"seed {', '.join(map(str, plccs))}" if plccs else "none",
            fix="name the others too, as in --seeds 0,1,2,3,4",
        )
    slack = thresholds.tolerance
    mean = fmean(plccs.values())
    spread = max(plccs.values()) - min(plccs.values())
    failing = [seed for seed, plcc in plccs.items() if plcc < thresholds.per_seed_min - slack]
    mean_pass = mean >= thresholds.mean_plcc_threshold - slack
    spread_pass = spread <= thresholds.plcc_spread_max + slack
    beats_vmaf = gain_over_vmaf is None or gain_over_vmaf.beats
    return GateReport(
        passed=mean_pass and spread_pass and not failing and beats_vmaf,
        mean_plcc=mean,
        mean_plcc_threshold=thresholds.mean_plcc_threshold,
        mean_plcc_pass=mean_pass,
        plcc_spread=spread,
        plcc_spread_max=thresholds.plcc_spread_max,
        plcc_spread_pass=spread_pass,
        per_seed_plccs=plccs,
        per_seed_min=thresholds.per_seed_min,
        per_seed_pass=not failing,
        failing_seeds=tuple(sorted(failing)),
        advisory=_advise(evidence),
        gain_over_vmaf=gain_over_vmaf,
    )


@dataclass(frozen=True)
class Limit:
    """One number beside its limit; `margin` is what is to spare, negative where it fails."""

    name: str
    value: float
    sign: Literal[">=", "<="]
    limit: float
    margin: float
    passed: bool


def limits(gate: Mapping[str, Any]) -> tuple[Limit, ...]:
    """Return the gate's three numbers beside their limits, from its JSON object."""
    seed, lowest = min(gate["per_seed_plccs"].items(), key=lambda item: item[1])
    numbers = (
        ("mean over seeds", gate["mean_plcc"], 1, gate["mean_plcc_threshold"]),
        ("spread of seeds", gate["plcc_spread"], -1, gate["plcc_spread_max"]),
        (f"lowest, seed {seed}", lowest, 1, gate["per_seed_min"]),
    )
    slack = GateThresholds.tolerance
    return tuple(
        Limit(name, value, ">=" if up > 0 else "<=", limit, margin, margin >= -slack)
        for name, value, up, limit in numbers
        for margin in [up * (value - limit)]
    )


def margin_text(margin: float) -> str:
    """Return a margin with four places, or its size where those would show nothing of it.

    >>> margin_text(0.0497), margin_text(-2e-6), margin_text(1e-15)
    ('+0.0497', '-2e-06', '0')
    """
    if abs(margin) <= GateThresholds.tolerance:
        return "0"
    return f"{margin:+.4f}" if abs(margin) >= 5e-5 else f"{margin:+.0e}"


def mean_per_fold(evidence: Evidence, score: Literal["plcc", "rmse"]) -> dict[str, float]:
    """Return, for each held-out source, the mean over seeds of its `score`.

    A source for which some seed did not record that score is left out, so old records may give an
    empty answer.
    """
    of_source: dict[str, list[float | None]] = {}
    for file in evidence.seed_files.values():
        for fold in file.folds:
            of_source.setdefault(fold.held_out, []).append(getattr(fold, score))
    return {
        source: fmean([value for value in values if value is not None])
        for source, values in of_source.items()
        if None not in values
    }


def _advise(evidence: Evidence) -> tuple[Advice, ...]:
    advice = []
    plccs, rmses = mean_per_fold(evidence, "plcc"), mean_per_fold(evidence, "rmse")
    if plccs:
        worst = min(plccs, key=plccs.__getitem__)
        advice.append(Advice("worst_fold_plcc", plccs[worst], f"held-out source {worst}"))
    if rmses:
        worst = max(rmses, key=rmses.__getitem__)
        advice.append(Advice("mean_rmse", fmean(rmses.values()), "in units of the target"))
        advice.append(Advice("worst_fold_rmse", rmses[worst], f"held-out source {worst}"))
    return tuple(advice)
