"""Frozen, validated settings: the one home of every hyperparameter, threshold and default."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from loso.errors import BadSettings
from loso.schema import CANONICAL, FeatureSet
from loso.spelling import did_you_mean

__all__ = [
    "ADAM_BETA1",
    "ADAM_BETA2",
    "ADAM_EPSILON",
    "DEFAULT_CORPUS",
    "DEFAULT_EXPERIMENT",
    "DEFAULT_OUT_DIR",
    "DEFAULT_SEEDS",
    "EVIDENCE_TOLERANCE",
    "MOST_SEED",
    "MOST_THREADS",
    "RECIPES",
    "STATISTICS",
    "UNITS",
    "ClusterLimits",
    "Compute",
    "GateThresholds",
    "InputSpec",
    "Recipe",
    "Tracking",
    "TrainingNeeds",
    "check_seeds",
    "help_of",
    "is_mapped",
]

DEFAULT_SEEDS: Final = (0, 1, 2, 3, 4)
"""Five members, as in Lakshminarayanan, Pritzel, Blundell 2017 (deep ensembles)."""

DEFAULT_EXPERIMENT: Final = "loso"
"""The MLflow experiment that runs are logged to."""

DEFAULT_CORPUS: Final = Path("runs/phase_a/full_grid/per_frame_canonical6.jsonl")
DEFAULT_OUT_DIR: Final = Path("runs/ensemble_v2_real")
"""Where the operators of the replaced scripts keep their corpus and their run."""

ADAM_BETA1: Final = 0.9
ADAM_BETA2: Final = 0.999
ADAM_EPSILON: Final = 1e-8
"""Adam's constants as Kingma and Ba 2015 give them, and as torch.optim.Adam defaults."""

EVIDENCE_TOLERANCE: Final = 1e-9
"""How far a recorded score may lie from what its folds or predictions give when recomputed.

Another order of summation moves a score over a million rows by less than 1e-12; an edit that
could change a verdict moves it by more than 1e-9.
"""


MOST_SEED: Final = 2**32 - 1
"""The largest seed that numpy.random.seed takes, the narrowest generator a seed may reach."""

MOST_THREADS: Final = 1024
"""Far above any machine; torch crashes where the system cannot start as many as it is asked."""


def check_seeds(seeds: Iterable[int], *, least: int = 1) -> tuple[int, ...]:
    """Return seeds as a tuple; BadSettings unless they are whole numbers, each once, `least` many.

    >>> check_seeds([3, 0])
    (3, 0)
    """
    given = tuple(seeds)
    good = all(type(seed) is int and 0 <= seed <= MOST_SEED for seed in given)
    if not good or len(given) < least or len(set(given)) < len(given):
        raise BadSettings(
            f"seeds must be whole numbers in 0..{MOST_SEED}, each once, {least} of them or more",
            found=", ".join(map(str, given)) or "none",
            fix="give --seeds 0,1,2,3,4",
        )
    return given


def _setting(default: Any, low: float, high: float, text: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "help": text})


def _choice(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def help_of(settings: type, name: str) -> str:
    """Return the sentence that explains field `name` of a settings class (used as CLI help)."""
    return next(str(f.metadata["help"]) for f in fields(settings) if f.name == name)


def _check_ranges(settings: Any) -> None:
    """Refuse a numeric field of a frozen settings object that lies outside its own range."""
    for f in fields(settings):
        if "low" not in f.metadata:
            continue
        value, low, high = getattr(settings, f.name), f.metadata["low"], f.metadata["high"]
        whole = isinstance(f.default, int)
        right_type = isinstance(value, int if whole else (int, float))
        if isinstance(value, bool) or not right_type or not low <= value <= high:
            raise BadSettings(
                f"{f.name} is out of range",
                expected=f"{'a whole number' if whole else 'a number'} in {low:.10g}..{high:.10g}",
                found=repr(value),
            )


UNITS: Final = ("frame", "clip")

STATISTICS: Final = ("mean", "p5", "std")
"""Of a feature over the frames of a clip: its mean, 5th percentile, standard deviation (ddof=0)."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What of a corpus goes into a network: features, then the codec block, then conditions.

    `conditions` are columns, as `loso.features.Condition` reads them. With clips as the unit a
    feature goes in by each of `statistics`, and `drop_first_frame` leaves out frame 0. Sources are
    the values of `group_by`. Without `codec_block` a network does not hear of the encoder.
    """

    features: FeatureSet = CANONICAL
    conditions: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ("mean",)
    drop_first_frame: bool = False
    codec_block: bool = True
    group_by: str = "src"

    def __post_init__(self) -> None:
        unknown = [name for name in self.statistics if name not in STATISTICS]
        if unknown or not self.statistics:
            raise BadSettings(
                "no such statistic of a clip",
                expected=" or ".join(STATISTICS),
                found=", ".join(unknown) or "none",
                fix=did_you_mean(next(iter(unknown), ""), STATISTICS),
            )
        for name in ("conditions", "statistics"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise BadSettings(f"{name} stand there twice", found=", ".join(values))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one member is trained; the defaults are those of fr_regressor_v2.

    The network is Linear, exact (erf) GELU, Dropout, `depth` times, then Linear to one score;
    Adam with coupled L2 weight decay on the mean squared error of the target: raw, or
    standardised on a member's training rows.

    >>> Recipe(epochs=5).batch_size
    32
    """

    target: str = _choice("vmaf", "Column to predict.")
    unit: str = _choice("frame", "frame, or clip: one row an encode, averaged over its frames.")
    inputs: InputSpec = InputSpec()
    standardise_target: bool = _choice(
        default=False, text="Learn the target standardised on training rows."
    )
    epochs: int = _setting(200, 1, 1_000_000, "Passes over the training rows.")
    batch_size: int = _setting(32, 1, 1024, "Rows a step; the last short batch counts too.")
    lr: float = _setting(5e-4, 1e-12, 1e3, "Adam's learning rate.")
    weight_decay: float = _setting(1e-5, 0.0, 1e3, "L2 penalty added to the gradient.")
    hidden: int = _setting(64, 1, 512, "Units of each hidden layer.")
    depth: int = _setting(2, 1, 4, "Hidden layers.")
    dropout: float = _setting(0.1, 0.0, 0.9, "Share of hidden units dropped while training.")

    def __post_init__(self) -> None:
        _check_ranges(self)
        if self.unit not in UNITS:
            raise BadSettings(
                "no such unit",
                expected=" or ".join(UNITS),
                found=self.unit,
                fix=did_you_mean(self.unit, UNITS),
            )
        if self.unit == "frame" and self.inputs.statistics != ("mean",):
            raise BadSettings("a frame has no statistics", fix="use --unit clip")


RECIPES: Final = {
    "fr-regressor-v2": Recipe(),
    "clip-mos": Recipe(
        target="mos",
        unit="clip",
        standardise_target=True,
        epochs=60,
        lr=2e-3,
        weight_decay=1e-3,
        hidden=8,
        depth=3,
        dropout=0.0,
    ),
}
"""Whole recipes by name; docs/decisions.md says where the numbers of each come from."""


def is_mapped(target: str) -> bool:
    """Tell whether predictions of `target` are mapped before they are judged: of all but VMAF.

    VMAF has one scale; panels use theirs in their own way (ITU-T P.1401).

    >>> is_mapped("mos"), is_mapped("vmaf")
    (True, False)
    """
    return target != "vmaf"


@dataclass(frozen=True, kw_only=True)
class GateThresholds:
    """When an ensemble may ship: limits on the per-seed mean PLCC over held-out sources.

    Limits are inclusive up to `tolerance`, so that 0.955 - 0.950 passes 0.005 in binary floats.
    """

    mean_plcc_threshold: float = _setting(0.95, -1.0, 1.0, "Least mean PLCC over the seeds.")
    plcc_spread_max: float = _setting(
        0.005, 0.0, 2.0, "Largest difference between two seeds: above it one seed drags or leads."
    )
    per_seed_min: float = _setting(0.95, -1.0, 1.0, "Least PLCC of every single seed.")
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        _check_ranges(self)
        if not math.isfinite(self.tolerance) or self.tolerance < 0:
            raise BadSettings("tolerance must be finite, not negative", found=f"{self.tolerance}")


@dataclass(frozen=True, kw_only=True)
class TrainingNeeds:
    """What a corpus must hold before it is worth training on."""

    min_rows: int = _setting(
        100, 1, 10**12, "Fewest rows: below this a correlation per source means nothing."
    )
    min_sources: int = _setting(2, 2, 10**6, "Fewest sources: one is held out, one is left.")

    def __post_init__(self) -> None:
        _check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What trains: `auto` takes the fastest that this machine has."""

    engine: str = _choice(
        "auto", "auto, native (compiled), batched (torch, all at once), reference (a plain loop)."
    )
    device: str = _choice("auto", "auto, cpu or cuda.")
    threads: int | None = _choice(None, "Threads of the engine; by default what suits it.")

    def __post_init__(self) -> None:
        count = self.threads
        if count is not None and (type(count) is not int or not 1 <= count <= MOST_THREADS):
            raise BadSettings(
                "threads is out of range",
                expected=f"a whole number in 1..{MOST_THREADS}",
                found=f"{count!r}",
            )


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where a run is logged beside its folder: nowhere, unless `mlflow` names a store."""

    mlflow: str | None = _choice(
        None, "MLflow store to log the run to, such as sqlite:///mlflow.db or http://host:5000."
    )
    mlflow_experiment: str = _choice(DEFAULT_EXPERIMENT, "Experiment in that store.")

    def __post_init__(self) -> None:
        if self.mlflow is not None and not self.mlflow.strip():
            raise BadSettings("--mlflow is empty", expected="a URI such as sqlite:///mlflow.db")
        if not self.mlflow_experiment.strip():
            raise BadSettings("--mlflow-experiment is empty", expected="a name")
        if self.mlflow is None and self.mlflow_experiment != DEFAULT_EXPERIMENT:
            raise BadSettings("--mlflow-experiment says nothing alone", fix="give --mlflow URI too")


@dataclass(frozen=True, kw_only=True)
class ClusterLimits:
    """How long a cluster is waited for, and how often a task may bring a worker down."""

    connect_s: float = _setting(10.0, 0.1, 3600.0, "Seconds for a scheduler to answer.")
    look_s: float = _setting(
        300.0, 0.1, 86_400.0, "Seconds for a worker to try its tools: dozens of encoders at worst."
    )
    worker_s: float = _setting(
        600.0, 0.1, 1e6, "Seconds without any worker that could go on, before the rest is given up."
    )
    deaths: int = _setting(
        3, 1, 100, "Workers that may be lost on a task: the first may have had other reasons."
    )

    def __post_init__(self) -> None:
        _check_ranges(self)
