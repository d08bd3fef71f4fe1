"""A run's folder: seeds trained into it, and those that are already there and still good.

A seed's `loso_seed{N}.json` is written last: where it stands, the files it speaks of are whole.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from loso.corpus.load import Corpus
from loso.corpus.view import view
from loso.crossval import SeedResult, run_loso
from loso.engine import choose
from loso.errors import BadInput
from loso.files import open_regular, read_json, remove_file, sha256_of, write_atomic, write_json
from loso.folds import leave_one_source_out
from loso.locks import folder_lock
from loso.progress import Progress, silent
from loso.recipe import DEFAULT_SEEDS, Compute, Recipe, check_seeds
from loso.schema import CODEC_BLOCK_WIDTH, ENCODER_VOCAB_VERSION
from loso.seedfile import (
    DRY_RUN,
    SCHEMA_VERSION,
    Predictions,
    SeedFile,
    predictions_file_name,
    read_seed_file,
    seed_file_name,
    write_seed_file,
)
from loso.stored import read_parquet

__all__ = [
    "BASELINES_FILE",
    "INTERVALS_FILE",
    "LOSSES_FILE",
    "REPORT_FILE",
    "RUN_FILE",
    "VERDICT_FILES",
    "TrainedRun",
    "fingerprint_of",
    "read_losses",
    "train_into",
]

RUN_FILE: Final = "run.json"
LOSSES_FILE: Final = "losses.parquet"
INTERVALS_FILE: Final = "intervals.json"
BASELINES_FILE: Final = "baselines.json"
REPORT_FILE: Final = "report.html"
VERDICT_FILES: Final = ("PROMOTE.json", "HOLD.json")
_LOSSES: Final = {
    "seed": pl.Int64,
    "fold": pl.Int64,
    "held_out": pl.String,
    "epoch": pl.Int64,
    "loss": pl.Float64,
}


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
    predictions are the bytes it names. One of another making is refused (BadInput), unless `force`
    replaces it. `dry_run` takes one epoch and marks the files, which no gate accepts and any
    training replaces. What was made of the seeds in the folder is removed before they change. What
    cannot be used is refused before anything is written; Busy where another process works in the
    folder.
    """
    out_dir, started, clock = Path(out_dir), datetime.now(UTC), time.monotonic()
    recipe, compute, seeds = recipe or Recipe(), compute or Compute(), check_seeds(seeds)
    if dry_run:
        recipe = replace(recipe, epochs=1)
    engine, device = choose(compute.engine, compute.device)
    compute = replace(compute, engine=engine, device=device)
    leave_one_source_out(view(corpus, recipe, exclude_sources).rows["src"].to_numpy())
    fingerprint = fingerprint_of(corpus, recipe, exclude_sources, engine=engine, device=device)
    if dry_run:
        fingerprint["note"] = DRY_RUN
    warnings: tuple[str, ...] = ()
    with folder_lock(out_dir, "training"):
        losses = read_losses(out_dir / LOSSES_FILE)
        kept = [] if force else _seeds_to_keep(out_dir, seeds, fingerprint, losses)
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
            for name in (*VERDICT_FILES, INTERVALS_FILE, BASELINES_FILE, REPORT_FILE):
                remove_file(out_dir / name)
            share_s = (time.monotonic() - group_clock) / len(group)
            for result in run.seeds:
                losses = _with_losses(losses, result)
                _write_seed(out_dir, result, losses, {**fingerprint, "wall_time_s": share_s})
        wall_time_s = time.monotonic() - clock
        call = {
            "command": list(command),
            "started_at_utc": started.isoformat(timespec="seconds"),
            "wall_time_s": wall_time_s,
            "threads": compute.threads,
            "trained_seeds": missing,
            "kept_seeds": kept,
        }
        earlier = _earlier_calls(out_dir / RUN_FILE)
        made = {**fingerprint, "inputs": asdict(recipe.inputs)}
        write_json(out_dir / RUN_FILE, {**made, "calls": [*earlier, call]})
    return TrainedRun(
        seed_files=tuple(read_seed_file(out_dir / seed_file_name(seed)) for seed in seeds),
        trained=tuple(missing),
        kept=tuple(kept),
        wall_time_s=wall_time_s,
        warnings=warnings,
    )


def fingerprint_of(
    corpus: Corpus, recipe: Recipe, exclude_sources: Sequence[str], *, engine: str, device: str
) -> dict[str, Any]:
    """Return the keys of a seed file that are known before training: what decides a seed's bytes.

    The corpus's path alone, `corpus`, has no part in that.
    """
    spec = recipe.inputs
    packages = ["loso", "numpy", "polars", *([] if engine == "native" else ["torch"])]
    return {
        "schema_version": SCHEMA_VERSION,
        "corpus": str(corpus.path),
        "corpus_sha256": corpus.sha256,
        "corpus_rows": len(corpus),
        "excluded_sources": tuple(sorted(set(exclude_sources))),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "lr": recipe.lr,
        "weight_decay": recipe.weight_decay,
        "hidden": recipe.hidden,
        "depth": recipe.depth,
        "dropout": recipe.dropout,
        "num_codecs": CODEC_BLOCK_WIDTH * spec.codec_block + len(spec.conditions),
        "target": recipe.target,
        "unit": recipe.unit,
        "inputs": spec,
        "standardise_target": recipe.standardise_target,
        "encoder_vocab_version": ENCODER_VOCAB_VERSION,
        "engine": engine if device == "cpu" else f"{engine}:{device}",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "note": None,
    }


def _seeds_to_keep(
    out_dir: Path, seeds: Sequence[int], fingerprint: dict[str, Any], losses: pl.DataFrame
) -> list[int]:
    """Return the seeds that need no training; BadInput where any seed there is of another making.

    One gate judges all seeds of a folder, so they must not differ. A damaged record, a dry run,
    and a record whose predictions or losses are not whole are worth nothing: those seeds are
    trained again.
    """
    kept = []
    for path in sorted(out_dir.glob("loso_seed*.json")):
        try:
            found = read_seed_file(path)
        except BadInput:
            continue
        if found.note == DRY_RUN and fingerprint["note"] != DRY_RUN:
            continue
        for key, asked in fingerprint.items():
            # Where the corpus lies does not matter: its hash says that it is the same.
            if key != "corpus" and getattr(found, key) != asked:
                raise BadInput(
                    f"this seed was trained with another {key}",
                    where=str(path),
                    expected=f"{asked}",
                    found=f"{getattr(found, key)}",
                    fix="choose another --out-dir, or replace it with --force",
                )
        whole = found.seed in losses["seed"] and _predictions_are_whole(out_dir, found)
        if whole:
            kept.append(found.seed)
    return [seed for seed in seeds if seed in kept]


def _predictions_are_whole(out_dir: Path, record: SeedFile) -> bool:
    if record.predictions is None:
        return False
    path = out_dir / record.predictions.file
    return path.is_file() and sha256_of(path) == record.predictions.sha256


def _write_seed(
    out_dir: Path, result: SeedResult, losses: pl.DataFrame, known: dict[str, Any]
) -> None:
    with write_atomic(out_dir / LOSSES_FILE) as temporary:
        losses.write_parquet(temporary)
    predictions = out_dir / predictions_file_name(result.seed)
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


def read_losses(path: Path) -> pl.DataFrame:
    """Return the loss of every member and epoch, or an empty table where none can be read."""
    empty = pl.DataFrame(schema=_LOSSES)
    try:
        with open_regular(path) as stream:
            losses = read_parquet(stream.read())
    except (OSError, ValueError):
        return empty
    return losses if losses.schema == empty.schema else empty


def _with_losses(losses: pl.DataFrame, result: SeedResult) -> pl.DataFrame:
    folds, epochs = result.losses.shape
    fresh = pl.DataFrame(
        {
            "seed": np.full(folds * epochs, result.seed),
            "fold": np.repeat(np.arange(folds), epochs),
            "held_out": np.repeat([fold.held_out for fold in result.folds], epochs),
            "epoch": np.tile(np.arange(epochs), folds),
            "loss": result.losses.ravel(),
        },
        schema=_LOSSES,
    )
    others = losses.filter(pl.col("seed") != result.seed)
    return pl.concat([others, fresh]).sort("seed", "fold", "epoch")


def _earlier_calls(path: Path) -> list[Any]:
    """Return the record of earlier calls; a damaged one is not worth losing a training for."""
    try:
        calls = read_json(path)["calls"]
    except (BadInput, KeyError, TypeError):
        return []
    return calls if isinstance(calls, list) else []
