"""Train small video-quality regressors, and judge them on sources they have never seen.

Public names load on first use: `import loso` alone imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from loso.calibration import calibrate_run as calibrate_run
    from loso.corpus.load import Corpus as Corpus
    from loso.corpus.load import load_corpus as load_corpus
    from loso.crossval import LosoRun as LosoRun
    from loso.crossval import SeedResult as SeedResult
    from loso.crossval import run_loso as run_loso
    from loso.errors import BadInput as BadInput
    from loso.errors import CannotRun as CannotRun
    from loso.errors import LosoError as LosoError
    from loso.errors import Refused as Refused
    from loso.evaluate import Evaluation as Evaluation
    from loso.evaluate import evaluate_model as evaluate_model
    from loso.evidence import Evidence as Evidence
    from loso.evidence import collect_evidence as collect_evidence
    from loso.export import export_model as export_model
    from loso.folds import Fold as Fold
    from loso.folds import leave_one_source_out as leave_one_source_out
    from loso.gate import GateReport as GateReport
    from loso.gate import evaluate_gate as evaluate_gate
    from loso.intervals import IntervalsFile as IntervalsFile
    from loso.pipeline import Outcome as Outcome
    from loso.pipeline import run as run
    from loso.predict import Prediction as Prediction
    from loso.predict import Predictor as Predictor
    from loso.recipe import Compute as Compute
    from loso.recipe import GateThresholds as GateThresholds
    from loso.recipe import InputSpec as InputSpec
    from loso.recipe import Recipe as Recipe
    from loso.recipe import TrainingNeeds as TrainingNeeds
    from loso.run_folder import TrainedRun as TrainedRun
    from loso.run_folder import train_into as train_into
    from loso.seedfile import FoldScore as FoldScore
    from loso.seedfile import SeedFile as SeedFile
    from loso.sklearn import LosoRegressor as LosoRegressor
    from loso.verdict import Verdict as Verdict
    from loso.verdict import validate_run as validate_run
    from loso.verify import verify_model as verify_model

_HOMES: Final = {
    "BadInput": "loso.errors",
    "CannotRun": "loso.errors",
    "Compute": "loso.recipe",
    "Corpus": "loso.corpus.load",
    "Evaluation": "loso.evaluate",
    "Evidence": "loso.evidence",
    "Fold": "loso.folds",
    "FoldScore": "loso.seedfile",
    "GateReport": "loso.gate",
    "GateThresholds": "loso.recipe",
    "InputSpec": "loso.recipe",
    "IntervalsFile": "loso.intervals",
    "LosoError": "loso.errors",
    "LosoRegressor": "loso.sklearn",
    "LosoRun": "loso.crossval",
    "Outcome": "loso.pipeline",
    "Prediction": "loso.predict",
    "Predictor": "loso.predict",
    "Recipe": "loso.recipe",
    "Refused": "loso.errors",
    "SeedFile": "loso.seedfile",
    "SeedResult": "loso.crossval",
    "TrainedRun": "loso.run_folder",
    "TrainingNeeds": "loso.recipe",
    "Verdict": "loso.verdict",
    "calibrate_run": "loso.calibration",
    "collect_evidence": "loso.evidence",
    "evaluate_gate": "loso.gate",
    "evaluate_model": "loso.evaluate",
    "export_model": "loso.export",
    "leave_one_source_out": "loso.folds",
    "load_corpus": "loso.corpus.load",
    "run": "loso.pipeline",
    "run_loso": "loso.crossval",
    "train_into": "loso.run_folder",
    "validate_run": "loso.verdict",
    "verify_model": "loso.verify",
}

__all__ = [
    "BadInput",
    "CannotRun",
    "Compute",
    "Corpus",
    "Evaluation",
    "Evidence",
    "Fold",
    "FoldScore",
    "GateReport",
    "GateThresholds",
    "InputSpec",
    "IntervalsFile",
    "LosoError",
    "LosoRegressor",
    "LosoRun",
    "Outcome",
    "Prediction",
    "Predictor",
    "Recipe",
    "Refused",
    "SeedFile",
    "SeedResult",
    "TrainedRun",
    "TrainingNeeds",
    "Verdict",
    "calibrate_run",
    "collect_evidence",
    "evaluate_gate",
    "evaluate_model",
    "export_model",
    "leave_one_source_out",
    "load_corpus",
    "run",
    "run_loso",
    "train_into",
    "validate_run",
    "verify_model",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("loso")
    if name not in _HOMES:
        raise AttributeError(f"module 'loso' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
