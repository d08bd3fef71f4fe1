"""What stands in a model's records: its sidecars, its manifest and its registry entries."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final

import numpy as np

from loso.corpus.load import Corpus
from loso.intervals import IntervalsFile
from loso.metrics import plcc, rmse
from loso.model.files import INPUT_NAMES, MEMBER_OUTPUTS, OPSET, RegistryEntry, member_stem
from loso.model.final_fit import FinalFit, Graphs
from loso.model.grounds import Grounds
from loso.recipe import InputSpec
from loso.schema import CODEC_BLOCK_COLUMNS, ENCODER_VOCAB, ENCODER_VOCAB_VERSION
from loso.seedfile import RECIPE_KEYS

__all__ = ["Model", "manifest_of", "registry_entry_of", "sidecar_of"]

_DECISIONS: Final = ("ADR-0303", "ADR-0309", "ADR-0319", "ADR-0321")
"""The decisions behind these files, under the names that their readers look for."""


_ELSEWHERE: Final = {"inputs", "num_codecs", "encoder_vocab_version", "standardise_target"}
_RECIPE_KEYS: Final = tuple(key for key in RECIPE_KEYS if key not in _ELSEWHERE)
"""What of a recipe stands in `training_recipe` as it is; the rest stands beside it."""


@dataclass(frozen=True)
class Model:
    """All that an export knows of the model it makes."""

    stem: str
    corpus: Corpus
    grounds: Grounds
    fit: FinalFit
    graphs: Graphs


def registry_entry_of(model: Model, seed: int) -> RegistryEntry:
    """Return a member's entry: a trial until it is flipped."""
    member = _member(model, seed)
    plcc_of_seed = model.grounds.promote.gate.per_seed_plccs[seed]
    return RegistryEntry(
        id=member["id"],
        kind="fr",
        onnx=member["onnx"],
        opset=OPSET,
        sha256=member["sha256"],
        smoke=True,
        notes=f"Member of {model.stem}, seed {seed}: mean PLCC {plcc_of_seed:.4f} on held-out "
        "sources.",
    )


def sidecar_of(model: Model, seed: int) -> dict[str, Any]:
    """Return a member's own record."""
    fit, promote = model.fit, model.grounds.promote
    gate, recipe = promote.gate, fit.recipe
    return {
        **_member(model, seed),
        **_inputs(fit),
        "ensemble_id": model.stem,
        "kind": "fr",
        "codec_aware": True,
        "output_names": list(MEMBER_OUTPUTS),
        "corpus": _corpus(model),
        "training_recipe": {
            "in_features": fit.n_features,
            "num_codecs": len(fit.inputs.block),
            **{key: getattr(recipe, key) for key in _RECIPE_KEYS},
            **({"standardise_target": True} if recipe.standardise_target else {}),
            "optimizer": "Adam",
            "loss": "MSE",
            "fit_set": "full_corpus",
            "scaler": "fit_on_full_corpus",
            "excluded_sources": list(model.grounds.evidence.excluded_sources),
            "engine": fit.engine,
            "loso_version": version("loso"),
        },
        "gate": gate.of_seed(seed),
        "loso_mean_plcc": gate.mean_plcc,
        "verdict_sha256": promote.sha256,
        "evidence": promote.evidence.to_dict(),
        "parent_adrs": list(_DECISIONS),
        "notes": (
            f"Member of {model.stem}, seed {seed}, fitted on all {fit.rows.height} rows of the "
            "corpus after the run had passed its gate on held-out sources. Standardised features "
            f"and the codec block in, {recipe.target} out."
        ),
    }


def manifest_of(model: Model) -> dict[str, Any]:
    """Return the record of the ensemble."""
    fit = model.fit
    matrix, target = fit.inputs.matrix, fit.inputs.target
    names = (*fit.inputs.features, *fit.inputs.block)
    preset = matrix[:, fit.n_features + fit.inputs.block.index("preset_norm")]
    seen = {"target_seen": [float(target.min()), float(target.max())]}
    scores = fit.predict(matrix)
    mu, sigma = scores.mean(axis=0), scores.std(axis=0, ddof=1)
    return {
        **_inputs(fit),
        "id": model.stem,
        "kind": "fr_ensemble",
        "ensemble_size": len(fit.networks),
        "members": [_member(model, seed) for seed in fit.networks],
        "onnx": f"{model.stem}.onnx",
        "sha256": hashlib.sha256(model.graphs.ensemble).hexdigest(),
        "output_names": list(model.graphs.ensemble_outputs),
        "target": fit.recipe.target,
        "target_range": fit.target_range,
        **(seen if fit.target_range is None else {}),
        "cq_min": fit.inputs.cq_min,
        "cq_max": fit.inputs.cq_max,
        "preset_constant": float(preset[0]) if np.ptp(preset) == 0 else None,
        "training_ranges": {
            name: [float(matrix[:, i].min()), float(matrix[:, i].max())]
            for i, name in enumerate(names)
            if name not in CODEC_BLOCK_COLUMNS
        },
        "training_sources": fit.source_hashes,
        "encoders_seen": fit.rows["encoder"].unique().sort().to_list(),
        "confidence": _confidence(model.grounds.intervals),
        "eval": {
            "fitted_and_scored_on_the_same_rows": True,
            "plcc": plcc(target, mu).value,
            "rmse": rmse(target, mu),
            "mean_sigma": float(sigma.mean()),
        },
        "smoke": True,
        "corpus_sha256": model.corpus.sha256,
        "verdict_sha256": model.grounds.promote.sha256,
        "loso_version": version("loso"),
    }


def _corpus(model: Model) -> dict[str, Any]:
    return {
        "path": model.corpus.path.name,
        "sha256": model.corpus.sha256,
        "n_rows": model.fit.rows.height,
        "cq_min": model.fit.inputs.cq_min,
        "cq_max": model.fit.inputs.cq_max,
    }


def _member(model: Model, seed: int) -> dict[str, Any]:
    name = member_stem(model.stem, seed)
    sha256 = hashlib.sha256(model.graphs.members[seed]).hexdigest()
    return {"id": name, "seed": seed, "onnx": f"{name}.onnx", "sha256": sha256}


def _inputs(fit: FinalFit) -> dict[str, Any]:
    """Return what a record says of the inputs; of `inputs` and `unit` where they are not usual."""
    width, recipe, mean, std = fit.n_features, fit.recipe, fit.scaler.mean, fit.scaler.std
    content: dict[str, Any] = {
        "feature_order": list(fit.inputs.features),
        "feature_mean": mean[:width].tolist(),
        "feature_std": std[:width].tolist(),
        "codec_block_layout": list(fit.inputs.block),
        "encoder_vocab": list(ENCODER_VOCAB),
        "encoder_vocab_version": ENCODER_VOCAB_VERSION,
        "input_names": list(INPUT_NAMES),
        "opset": OPSET,
    }
    if recipe.inputs != InputSpec():
        content["inputs"] = asdict(recipe.inputs)
    if recipe.unit != "frame":
        content["unit"] = recipe.unit
    if recipe.inputs.conditions:
        first = width + len(CODEC_BLOCK_COLUMNS)
        content["condition_mean"] = mean[first:].tolist()
        content["condition_std"] = std[first:].tolist()
    return content


def _confidence(intervals: IntervalsFile | None) -> dict[str, Any] | None:
    if intervals is None:
        return None
    shown = {"mean", "worst", "worst_source", "mean_width"}
    return {
        "method": intervals.method,
        "nominal_coverage": intervals.default_level,
        "n_calibration_sources": intervals.n_calibration_sources,
        "by_pool": {pool: rule.model_dump(mode="json") for pool, rule in intervals.by_pool.items()},
        "measured_coverage": {
            "judged_sources": len(intervals.coverage.judged_sources),
            "by_pool": {
                pool: {
                    level: found.model_dump(mode="json", include=shown)
                    for level, found in coverage.hierarchical.items()
                }
                for pool, coverage in intervals.coverage.by_pool.items()
            },
        },
    }
