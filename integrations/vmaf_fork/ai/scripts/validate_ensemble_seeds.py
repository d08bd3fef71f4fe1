#!/usr/bin/env python3
"""PROMOTE.json or HOLD.json for a run of the fr_regressor_v2 ensemble, over loso.

Exit 0: promote. Exit 1: hold. Exit 2: cannot be judged, nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loso.cli.console import warn_all
from loso.cli.options import DEFAULT_SEEDS_TEXT, parse_seeds
from loso.errors import BadInput, LosoError
from loso.recipe import GateThresholds
from loso.verdict import snapshot_corpus, validate_run

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "ci"))

from ensemble_prod_gate import (
    SHIP_GATE_MEAN_PLCC,
    SHIP_GATE_PLCC_SPREAD_MAX,
    require_seed_files,
)

__all__ = ["build_argparser", "main", "run_validation", "snapshot_corpus"]


def build_argparser():
    parser = argparse.ArgumentParser(prog="validate_ensemble_seeds", description=__doc__)
    parser.add_argument("loso_dir", type=Path)
    parser.add_argument("--corpus-root", type=Path, default=Path(".workingdir2/netflix"))
    parser.add_argument("--seeds", default=DEFAULT_SEEDS_TEXT)
    return parser


def run_validation(
    loso_dir,
    seeds,
    corpus_root,
    mean_threshold=SHIP_GATE_MEAN_PLCC,
    spread_max=SHIP_GATE_PLCC_SPREAD_MAX,
):
    """Return the verdict as a dict, and the file that holds it; thin evidence is judged too."""
    require_seed_files(Path(loso_dir), seeds)
    try:
        verdict, path = validate_run(
            Path(loso_dir),
            seeds,
            GateThresholds(
                mean_plcc_threshold=mean_threshold,
                plcc_spread_max=spread_max,
                per_seed_min=mean_threshold,
            ),
            corpus_root=Path(corpus_root),
            allow_thin=True,
        )
    except BadInput as refusal:
        raise ValueError(str(refusal)) from None
    warn_all(verdict.warnings)
    return verdict.to_dict(), path


def main(argv=None):
    args = build_argparser().parse_args(argv)
    try:
        seeds = parse_seeds(args.seeds)
        verdict, path = run_validation(args.loso_dir, seeds, args.corpus_root)
    except LosoError as refusal:
        print(f"[validate-ensemble] error: {refusal}", file=sys.stderr)
        return refusal.exit_code
    except (OSError, ValueError) as error:
        print(f"[validate-ensemble] error: {error}", file=sys.stderr)
        return 2
    gate = verdict["gate"]
    print(
        f"[validate-ensemble] verdict={verdict['verdict']} mean_plcc={gate['mean_plcc']:.4f} "
        f"spread={gate['plcc_spread']:.4f} -> {path}"
    )
    return 0 if verdict["verdict"] == "PROMOTE" else 1


if __name__ == "__main__":
    sys.exit(main())
