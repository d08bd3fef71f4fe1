"""How long a report of many rows takes, as a whole command, and how large its file is.

The corpus is the demo corpus again and again, each time as later frames of the same clips. Its
seeds are trained for one epoch, which does not count; intervals, baselines and a verdict stand
beside them.

    python bench/report.py --rows 400000
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loso.corpus.load import load_corpus
from loso.data import demo_corpus_path

SEEDS = "0,1,2,3,4"


def write_corpus(path: Path, rows: int) -> None:
    """Write `rows` rows: those of the demo, then the same ones as later frames."""
    measured = load_corpus(demo_corpus_path()).rows.to_dicts()
    frames = 1 + max(row["frame_index"] for row in measured)
    with path.open("w", encoding="utf-8") as stream:
        for at in range(rows):
            take, place = divmod(at, len(measured))
            row = measured[place]
            later = row | {"frame_index": row["frame_index"] + take * frames}
            stream.write(json.dumps(later) + "\n")


def loso(*words: str) -> float:
    """Run a command and return its seconds; exit code 1, a HOLD, is an answer too."""
    start = time.perf_counter()
    program = str(Path(sys.executable).with_name("loso"))
    done = subprocess.run([program, *words], check=False, capture_output=True)
    if done.returncode > 1:
        sys.exit(done.stderr.decode())
    return time.perf_counter() - start


def main() -> None:
    """Train, calibrate and judge once, then measure the report."""
    parser = argparse.ArgumentParser(description="How long a report of many rows takes.")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus, run = Path(folder) / "corpus.jsonl", Path(folder) / "run"
        write_corpus(corpus, options.rows)
        given = ("--corpus", str(corpus), "--seeds", SEEDS)
        recipe = ("--epochs", "1", "--hidden", "4")
        loso("train", *given, *recipe, "--out-dir", str(run))
        loso("calibrate", str(run), *given, "--pairs", "10")
        loso("ablate", str(run), *given)
        loso("validate", str(run), *given)
        seconds = [loso("report", str(run)) for _ in range(options.repeats)]
        size = (run / "report.html").stat().st_size
    print(
        f"{options.rows} rows, {len(SEEDS.split(','))} seeds: {statistics.median(seconds):.1f} s, "
        f"median of {options.repeats}, {size / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    main()
