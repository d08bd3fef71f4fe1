#!/usr/bin/env python3
"""Leave-one-source-out training of the fr_regressor_v2 ensemble, under its old name, over loso."""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from pathlib import Path

from loso.cli.console import show_progress, warn_all
from loso.cli.options import parse_seeds
from loso.errors import BadCorpus, BadSettings, LosoError
from loso.recipe import DEFAULT_CORPUS, DEFAULT_SEEDS, Recipe
from loso.schema import (
    CANONICAL_6,
    CODEC_BLOCK_COLUMNS,
    ENCODER_VOCAB,
    ENCODER_VOCAB_VERSION,
    REQUIRED_NUMBERS,
    UNKNOWN_ENCODER_INDEX,
)
from loso.schema import CODEC_BLOCK_WIDTH as CODEC_BLOCK_DIM
from loso.seedfile import seed_file_name

__all__ = [
    "CANONICAL_6",
    "CODEC_BLOCK_DIM",
    "ENCODER_VOCAB",
    "ENCODER_VOCAB_VERSION",
    "NETFLIX_SOURCES",
    "N_ENCODERS",
    "UNKNOWN_ENCODER_INDEX",
    "build_argparser",
    "main",
]

_NUMBERS = dict.fromkeys(REQUIRED_NUMBERS, float) | {"frame_index": int}

N_ENCODERS = len(ENCODER_VOCAB)
NETFLIX_SOURCES = (
    "BigBuckBunny_25fps",
    "BirdsInCage_30fps",
    "CrowdRun_25fps",
    "ElFuente1_30fps",
    "ElFuente2_30fps",
    "FoxBird_25fps",
    "OldTownCross_25fps",
    "Seeking_25fps",
    "Tennis_24fps",
)


def build_argparser():
    recipe = Recipe()
    parser = argparse.ArgumentParser(
        prog="train_fr_regressor_v2_ensemble_loso", description=__doc__
    )
    parser.add_argument("--seeds", type=_seeds, default=list(DEFAULT_SEEDS), metavar="N,N,...")
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--out-dir", type=Path, default=Path("runs/ensemble_loso"))
    parser.add_argument("--epochs", type=int, default=recipe.epochs)
    parser.add_argument("--batch-size", type=int, default=recipe.batch_size)
    parser.add_argument("--lr", type=float, default=recipe.lr)
    parser.add_argument("--weight-decay", type=float, default=recipe.weight_decay)
    parser.add_argument("--num-codecs", type=int, default=CODEC_BLOCK_DIM)
    parser.add_argument("--dry-run", action="store_true", help="one epoch; no gate accepts it")
    return parser


def _seeds(text):
    try:
        return list(parse_seeds(text))
    except BadSettings as refusal:
        raise argparse.ArgumentTypeError(str(refusal)) from None


def _recipe(args):
    if args.num_codecs != CODEC_BLOCK_DIM:
        raise BadSettings(
            "--num-codecs is the width of the codec block, which the vocabulary fixes",
            expected=f"{CODEC_BLOCK_DIM}",
            found=f"{args.num_codecs}",
        )
    return Recipe(
        epochs=1 if args.dry_run else args.epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        weight_decay=args.weight_decay,
    )


def _set_seed_all(seed):
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (callers rely on the global generator)
    torch.manual_seed(seed)


def _load_corpus(path):
    import numpy as np
    import pandas as pd

    from loso.corpus.load import load_corpus
    from loso.inputs import Scaler, build_inputs

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: corpus not found; scripts/dev/hw_encoder_corpus.py makes it"
        )
    try:
        corpus = load_corpus(path)
    except BadCorpus as refusal:
        raise ValueError(str(refusal)) from None
    inputs = build_inputs(corpus)
    warn_all((*corpus.warnings, *inputs.warnings))
    width = len(CANONICAL_6)
    scaler = Scaler.fit(inputs.matrix, inputs.scaled)
    mean, std = scaler.mean[:width], scaler.std[:width]
    columns = corpus.rows.to_dict(as_series=False)
    return {
        # As objects, optional columns keep what they hold: else preset 8 beside None becomes 8.0.
        "df": pd.DataFrame(columns, dtype=object).astype(_NUMBERS),
        "feature_cols": list(CANONICAL_6),
        "codec_block_cols": list(CODEC_BLOCK_COLUMNS),
        "target_col": "vmaf",
        "source_col": "src",
        "scaler_params": {"feature_mean": mean.tolist(), "feature_std": std.tolist()},
        "codec_block": inputs.matrix[:, width:].astype(np.float32),
        "feature_mean": mean,
        "feature_std": std,
        "cq_min": inputs.cq_min,
        "cq_max": inputs.cq_max,
        "n_rows": len(corpus),
    }


def _train_one_seed(seed, corpus, args):
    import polars as pl

    from loso.corpus.load import Corpus
    from loso.crossval import run_loso

    started, recipe = time.monotonic(), _recipe(args)
    rows = pl.DataFrame(corpus["df"].to_dict("list"), infer_schema_length=None)
    opened = Corpus(Path(args.corpus), sha256="", rows=rows, unknown_encoders={}, warnings=())
    (result,) = run_loso(opened, recipe, [seed]).seeds
    summary = {
        "seed": seed,
        "corpus": str(args.corpus),
        "n_folds": len(result.folds),
        "folds": [_with_nan(fold.model_dump(exclude={"reason"})) for fold in result.folds],
        **_with_nan(result.summary),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "lr": recipe.lr,
        "weight_decay": recipe.weight_decay,
        "num_codecs": args.num_codecs,
        "encoder_vocab_version": ENCODER_VOCAB_VERSION,
        "wall_time_s": time.monotonic() - started,
    }
    return summary | {"note": "dry-run"} if args.dry_run else summary


def _with_nan(scores):
    """Callers of the summary expect a float: here, and only here, undefined is NaN."""
    return {key: math.nan if value is None else value for key, value in scores.items()}


def main(argv=None):
    args = build_argparser().parse_args(argv)
    try:
        from loso.corpus.load import load_corpus
        from loso.run_folder import train_into

        corpus = load_corpus(args.corpus)
        with show_progress("training") as progress:
            trained = train_into(
                args.out_dir,
                corpus,
                _recipe(args),
                args.seeds,
                dry_run=args.dry_run,
                command=sys.argv if argv is None else argv,
                progress=progress,
            )
    except LosoError as refusal:
        print(f"[ensemble-loso] {refusal}", file=sys.stderr)
        return refusal.exit_code
    warn_all((*corpus.warnings, *trained.warnings))
    for seed_file in trained.seed_files:
        path, plcc = args.out_dir / seed_file_name(seed_file.seed), seed_file.mean_plcc
        scores = "mean_plcc undefined" if plcc is None else f"mean_plcc={plcc:.4f}"
        how = "kept" if seed_file.seed in trained.kept else "wrote"
        print(f"[ensemble-loso] {how} {path} {scores}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
