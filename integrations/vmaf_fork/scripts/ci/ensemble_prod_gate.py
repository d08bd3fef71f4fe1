#!/usr/bin/env python3
"""The ship gate of the fr_regressor_v2 ensemble, under its old name, over loso.

Exit 0: passed. Exit 1: failed. Exit 2: cannot be judged.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from loso.cli.console import warn_all
from loso.cli.options import DEFAULT_SEEDS_TEXT, parse_seeds
from loso.errors import LosoError
from loso.evidence import Evidence, collect_evidence
from loso.gate import evaluate_gate as judge
from loso.recipe import DEFAULT_SEEDS, GateThresholds
from loso.seedfile import SeedFile, seed_file_name

SHIP_GATE_MEAN_PLCC = GateThresholds.mean_plcc_threshold
SHIP_GATE_PLCC_SPREAD_MAX = GateThresholds.plcc_spread_max
DEFAULT_ENSEMBLE_SIZE = len(DEFAULT_SEEDS)


def build_argparser():
    parser = argparse.ArgumentParser(prog="ensemble_prod_gate", description=__doc__)
    parser.add_argument("loso_dir", type=Path)
    parser.add_argument("--seeds", default=DEFAULT_SEEDS_TEXT)
    parser.add_argument("--mean-plcc-threshold", type=float, default=SHIP_GATE_MEAN_PLCC)
    parser.add_argument("--plcc-spread-max", type=float, default=SHIP_GATE_PLCC_SPREAD_MAX)
    parser.add_argument("--per-seed-min", type=float, default=SHIP_GATE_MEAN_PLCC)
    parser.add_argument("--json", action="store_true")
    return parser


def load_seed_jsons(loso_dir, seeds):
    """Return the content of each seed's file, proven fit to be judged, thin ones too."""
    require_seed_files(Path(loso_dir), seeds)
    try:
        evidence = collect_evidence(Path(loso_dir), seeds, allow_thin=True)
    except LosoError as refusal:
        raise ValueError(str(refusal)) from None
    warn_all(evidence.warnings)
    return {
        seed: json.loads((Path(loso_dir) / seed_file_name(seed)).read_bytes()) for seed in seeds
    }


def require_seed_files(loso_dir, seeds):
    for path in (loso_dir / seed_file_name(seed) for seed in seeds):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: seed file not found; "
                "ai/scripts/train_fr_regressor_v2_ensemble_loso.py makes it"
            )


def evaluate_gate(
    seed_payloads,
    mean_plcc_threshold=SHIP_GATE_MEAN_PLCC,
    plcc_spread_max=SHIP_GATE_PLCC_SPREAD_MAX,
    per_seed_min=SHIP_GATE_MEAN_PLCC,
):
    """Return the gate's report on {seed: content with mean_plcc}, seeds as integers."""
    try:
        files = {s: SeedFile(seed=s, mean_plcc=c["mean_plcc"]) for s, c in seed_payloads.items()}
        thresholds = GateThresholds(
            mean_plcc_threshold=mean_plcc_threshold,
            plcc_spread_max=plcc_spread_max,
            per_seed_min=per_seed_min,
        )
        report = judge(Evidence(Path(), files, {}, {}), thresholds).to_dict()
    except LosoError as refusal:
        raise ValueError(str(refusal)) from None
    del report["advisory"]
    return report | {"per_seed_plccs": {s: file.mean_plcc for s, file in files.items()}}


def main(argv=None):
    args = build_argparser().parse_args(argv)
    try:
        report = evaluate_gate(
            load_seed_jsons(args.loso_dir, parse_seeds(args.seeds)),
            args.mean_plcc_threshold,
            args.plcc_spread_max,
            args.per_seed_min,
        )
    except (OSError, ValueError, LosoError) as error:
        print(f"[ensemble-gate] error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(report, indent=2, sort_keys=True))
    else:
        for name, limit in (
            ("mean_plcc", "mean_plcc_threshold"),
            ("plcc_spread", "plcc_spread_max"),
            ("per_seed", "per_seed_min"),
        ):
            value = min(report["per_seed_plccs"].values()) if name == "per_seed" else report[name]
            answer = "pass" if report[f"{name}_pass"] else "FAIL"
            print(f"{name:12}{value:.4f}  limit {report[limit]:.4f}  {answer}")
        print(f"[ensemble-gate] {'PASS' if report['passed'] else 'FAIL'}")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
