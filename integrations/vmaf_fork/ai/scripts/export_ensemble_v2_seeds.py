#!/usr/bin/env python3
"""Graphs and sidecars of a promoted fr_regressor_v2 ensemble, under its old name, over loso.

Exit 0: exported. Exit 1: the verdict does not speak of the run. Exit 2: bad input. Exit 3: the
verdict is not PROMOTE, or this machine lacks something.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loso.cli.console import show_progress, warn_all
from loso.cli.options import DEFAULT_SEEDS_TEXT, parse_seeds
from loso.errors import BadInput, BadSettings, LosoError
from loso.files import read_json
from loso.recipe import DEFAULT_CORPUS, DEFAULT_OUT_DIR, Recipe
from loso.seedfile import read_seed_file, seed_file_name

NOT_PROMOTED = 3
RECIPE_OPTIONS = ("epochs", "batch_size", "lr", "weight_decay")


def build_argparser():
    recipe = Recipe()
    parser = argparse.ArgumentParser(prog="export_ensemble_v2_seeds", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--promote-json", type=Path, default=DEFAULT_OUT_DIR / "PROMOTE.json")
    parser.add_argument("--seeds", default=DEFAULT_SEEDS_TEXT)
    parser.add_argument("--epochs", type=int, default=recipe.epochs)
    parser.add_argument("--batch-size", type=int, default=recipe.batch_size)
    parser.add_argument("--lr", type=float, default=recipe.lr)
    parser.add_argument("--weight-decay", type=float, default=recipe.weight_decay)
    parser.add_argument("--out-dir", type=Path, default=Path("model/tiny"))
    parser.add_argument("--update-registry", action="store_true", help="smoke: false right away")
    return parser


def _require_same_making(args, verdict):
    """The models that ship are made as those that were judged: other wishes are refused."""
    run_dir = args.promote_json.parent
    if args.promote_json.name != "PROMOTE.json":
        raise BadInput("not a run's verdict", where=str(args.promote_json), expected="PROMOTE.json")
    asked = sorted(parse_seeds(args.seeds))
    if asked != verdict.get("seeds"):
        raise BadSettings(
            "--seeds are not those of the verdict",
            expected=f"{verdict.get('seeds')}",
            found=f"{asked}",
        )
    record = read_seed_file(run_dir / seed_file_name(asked[0]))
    for name in RECIPE_OPTIONS:
        if getattr(args, name) != getattr(record, name):
            raise BadSettings(
                f"--{name.replace('_', '-')} is not what the run was trained and judged with",
                expected=f"{getattr(record, name)}",
                found=f"{getattr(args, name)}",
            )


def _export(args):
    from loso.corpus.load import load_corpus
    from loso.export import export_model
    from loso.model.files import DEFAULT_STEM
    from loso.registry import flip

    with show_progress("final fit") as progress:
        exported = export_model(
            args.promote_json.parent, load_corpus(args.corpus), args.out_dir, progress=progress
        )
    if args.update_registry:
        flip(args.out_dir, args.promote_json, stem=DEFAULT_STEM)
    return exported


def main(argv=None):
    args = build_argparser().parse_args(argv)
    try:
        for path in (args.corpus, args.promote_json):
            if not path.is_file():
                raise BadInput("file not found", where=str(path))
        verdict = read_json(args.promote_json)
        if not isinstance(verdict, dict) or verdict.get("verdict") != "PROMOTE":
            print(f"error: {args.promote_json}: the verdict is not PROMOTE", file=sys.stderr)
            return NOT_PROMOTED
        _require_same_making(args, verdict)
        exported = _export(args)
    except LosoError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return refusal.exit_code
    warn_all(exported.warnings)
    for member in exported.manifest.members:
        print(f"[export-ens] seed{member.seed}: {member.sha256}")
    use = "smoke: false" if args.update_registry else "smoke: true until loso registry flip"
    print(f"[export-ens] wrote {args.out_dir}, {use}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
