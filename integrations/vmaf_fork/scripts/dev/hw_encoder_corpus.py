#!/usr/bin/env python3
"""Corpus rows of one raw clip and one encoder, over loso.

A call that is repeated measures only what is missing. Exit 1: some cells failed, the others are
there. Exit 2: bad input. Exit 3: ffmpeg or the encoder does not work here.
"""

from __future__ import annotations

import argparse
import json
import sys
from fractions import Fraction
from pathlib import Path

from loso.cli.console import hint, show_progress
from loso.corpus.build import build_corpus
from loso.corpus.choices import read_choices
from loso.corpus.plan import BuildSettings
from loso.errors import BadSettings, LosoError
from loso.machine import cores
from loso.video.clips import ClipSettings
from loso.video.ffmpeg import find_ffmpeg


def build_argparser():
    parser = argparse.ArgumentParser(prog="hw_encoder_corpus", description=__doc__)
    parser.add_argument("--vmaf-bin", type=Path, help="taken, not used: ffmpeg's libvmaf scores")
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--pix-fmt", default="yuv420p")
    parser.add_argument("--framerate", type=Fraction, default=Fraction(25))
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--cq", type=int, action="append", required=True, help="repeatable")
    parser.add_argument("--qsv-device", type=Path, default=Path("/dev/dri/renderD129"))
    parser.add_argument("--vaapi-device", type=Path, default=Path("/dev/dri/renderD129"))
    parser.add_argument("--out", type=Path, required=True)
    return parser


def _refuse_other_rows(out, source, encoder):
    """Every call writes the whole file: rows of another source or encoder would be lost."""
    if not out.exists():
        return
    ours = {"src": source.stem, "encoder": encoder}
    for line in out.read_bytes().splitlines():
        try:
            row = json.loads(line)
            found = {key: row[key] for key in ours}
        except (ValueError, TypeError, KeyError):
            found = line[:40]
        if found != ours:
            raise BadSettings(
                "--out holds something else than rows of this source and encoder",
                where=str(out),
                expected=f"{ours}",
                found=f"{found}",
                fix="give each source and encoder a file of its own, then concatenate them",
            )


def main(argv=None):
    args = build_argparser().parse_args(argv)
    if args.vmaf_bin is not None:
        hint("hw_encoder_corpus: --vmaf-bin is not used, ffmpeg's own libvmaf scores")
    try:
        _refuse_other_rows(args.out, args.source, args.encoder)
        settings = BuildSettings(
            choices=read_choices([args.encoder], quality=[",".join(map(str, args.cq))]),
            clips=ClipSettings(
                raw_size=(args.width, args.height),
                raw_pixel_format=args.pix_fmt,
                fps=args.framerate,
            ),
            qsv_device=str(args.qsv_device),
            vaapi_device=str(args.vaapi_device),
        )
        with show_progress("corpus") as progress:
            report = build_corpus(
                [args.source],
                settings,
                find_ffmpeg(),
                out=args.out,
                jobs=cores().usable,
                command=sys.argv if argv is None else argv,
                progress=progress,
                say=hint,
            )
    except LosoError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return refusal.exit_code
    for name, reason in report.missing.items():
        print(f"[failed] {name}: {reason}", file=sys.stderr)
    print(f"[done] {report.rows} rows -> {report.corpus}")
    return 1 if report.missing else 0


if __name__ == "__main__":
    sys.exit(main())
