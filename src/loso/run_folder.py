"""A run's folder: seeds trained into it, and those that are already there and still good.

A seed's `loso_seed{N}.json` is written last: where it stands, the files it speaks of are whole.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from loso.corpus.load import Corpus
from loso.crossval import SeedResult, run_loso
from loso.engine import choose
from loso.errors import BadInput
from loso.files import folder_lock, read_json, sha256_of, write_atomic, write_json
from loso.progress import Progress, silent
from loso.recipe import DEFAULT_SEEDS, Compute, Recipe
from loso.schema import CODEC_BLOCK_WIDTH, ENCODER_VOCAB_VERSION
from loso.seedfile import (
    DRY_RUN,
    SCHEMA_VERSION,
    Predictions,
    SeedFile,
    read_seed_file,
    seed_file_name,
    write_seed_file,
)

__all__ = ["LOSSES_FILE", "RUN_FILE", "TrainedRun", "train_into"]

RUN_FILE: Final = "run.json"
LOSSES_FILE: Final = "losses.parquet"
_VERDICTS: Final = ("PROMOTE.json", "HOLD.json")


@dataclass(frozen=True)
class TrainedRun:
    """What stands in a run's folder after training: one record a seed, and which are new."""

    seed_files: tuple[SeedFile, ...]
    trained: tuple[int, ...]
    kept: tuple[int, ...]
    wall_time_s: float
    warnings: tuple[str, ...]


def train_into(
    out_dir: Path,
    corpus: Corpus,
    recipe: Recipe | None = None,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    *,
    exclude_sources: Sequence[str] = (),
    dry_run: bool = False,
    force: bool = False,
    compute: Compute | None = None,
    command: Sequence[str] = (),
    progress: Progress = silent,
) -> TrainedRun:
    """Train each seed that `out_dir` does not hold already, and write its files.

    A seed is kept where its record names the same corpus, recipe, engine and versions, and its
    predictions are the bytes it names; `force` trains it again. `dry_run` takes one epoch and marks
    the files, which no gate accepts. A verdict in the folder is removed before seeds change.
    Busy where another process works in the folder.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    recipe = recipe or Recipe()
    if dry_run:
        recipe = replace(recipe, epochs=1)
    compute = compute or Compute()
    engine, device = choose(compute.engine, compute.device)
    compute = replace(compute, engine=engine, device=device)
    seed_file = _unscored(corpus, recipe, exclude_sources, engine=engine, device=device)
    if dry_run:
        seed_file["note"] = DRY_RUN
    with folder_lock(out_dir, "training"):
        kept = [] if force else [s for s in seeds if _still_good(out_dir, s, seed_file)]
        warnings: tuple[str, ...] = ()
        missing = [seed for seed in seeds if seed not in kept]
        # The plain loop gains nothing from company; one seed at a time, a kill costs only one.
        for group in [[s] for s in missing] if engine == "reference" else [missing] * bool(missing):
            group_clock = time.monotonic()
            run = run_loso(
                corpus,
                recipe,
                group,
                exclude_sources=exclude_sources,
                compute=compute,
                progress=progress,
            )
            warnings = run.warnings
            for name in _VERDICTS:
                (out_dir / name).unlink(missing_ok=True)
            share_s = (time.monotonic() - group_clock) / len(group)
            for result in run.seeds:
                _write_seed(out_dir, result, {**seed_file, "wall_time_s": share_s})
        wall_time_s = time.monotonic() - clock
        call = {
            "command": list(command),
            "started_at_utc": started.isoformat(timespec="seconds"),
            "wall_time_s": wall_time_s,
            "threads": compute.threads,
            "trained_seeds": missing,
            "kept_seeds": kept,
        }
        _write_run_file(out_dir, seed_file, call)
    return TrainedRun(
        seed_files=tuple(read_seed_file(out_dir / seed_file_name(seed)) for seed in seeds),
        trained=tuple(missing),
        kept=tuple(kept),
        wall_time_s=wall_time_s,
        warnings=warnings,
    )


def _unscored(
    corpus: Corpus, recipe: Recipe, exclude_sources: Sequence[str], *, engine: str, device: str
) -> dict[str, Any]:
    """Return the keys of a seed file that are known before training: its fingerprint."""
    packages = ("loso", "numpy", "polars", "torch")
    return {
        "schema_version": SCHEMA_VERSION,
        "corpus": str(corpus.path),
        "corpus_sha256": corpus.sha256,
        "corpus_rows": len(corpus),
        "excluded_sources": tuple(sorted(exclude_sources)),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "lr": recipe.lr,
        "weight_decay": recipe.weight_decay,
        "hidden": recipe.hidden,
        "depth": recipe.depth,
        "dropout": recipe.dropout,
        "num_codecs": CODEC_BLOCK_WIDTH,
        "target": recipe.target,
        "unit": recipe.unit,
        "encoder_vocab_version": ENCODER_VOCAB_VERSION,
        "engine": engine if device == "cpu" else f"{engine}:{device}",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "note": None,
    }


def _still_good(out_dir: Path, seed: int, fingerprint: dict[str, Any]) -> bool:
    try:
        found = read_seed_file(out_dir / seed_file_name(seed))
    except BadInput:
        return False
    # Where the corpus lies does not matter: its hash says that it is the same.
    same = all(getattr(found, key) == fingerprint[key] for key in fingerprint if key != "corpus")
    if not same or found.seed != seed or found.predictions is None:
        return False
    predictions = out_dir / found.predictions.file
    return predictions.is_file() and sha256_of(predictions) == found.predictions.sha256


def _write_seed(out_dir: Path, result: SeedResult, known: dict[str, Any]) -> None:
    _write_losses(out_dir / LOSSES_FILE, result)
    predictions = out_dir / f"oof_seed{result.seed}.parquet"
    with write_atomic(predictions) as temporary:
        result.predictions.write_parquet(temporary)
    write_seed_file(
        out_dir / seed_file_name(result.seed),
        SeedFile(
            **known,
            seed=result.seed,
            n_folds=len(result.folds),
            folds=result.folds,
            predictions=Predictions(file=predictions.name, sha256=sha256_of(predictions)),
            **result.summary,
        ),
    )


def _write_losses(path: Path, result: SeedResult) -> None:
    """Replace a seed's losses in the table `seed fold held_out epoch loss`."""
    folds, epochs = result.losses.shape
    fresh = pl.DataFrame(
        {
            "seed": np.full(folds * epochs, result.seed),
            "fold": np.repeat(np.arange(folds), epochs),
            "held_out": np.repeat([fold.held_out for fold in result.folds], epochs),
            "epoch": np.tile(np.arange(epochs), folds),
            "loss": result.losses.ravel(),
        }
    )
    if path.is_file():
        others = pl.read_parquet(path).filter(pl.col("seed") != result.seed)
        fresh = pl.concat([others, fresh]).sort("seed", "fold", "epoch")
    with write_atomic(path) as temporary:
        fresh.write_parquet(temporary)


def _write_run_file(out_dir: Path, seed_file: dict[str, Any], call: dict[str, Any]) -> None:
    path = out_dir / RUN_FILE
    calls = read_json(path)["calls"] if path.is_file() else []
    write_json(path, {**seed_file, "calls": [*calls, call]})
