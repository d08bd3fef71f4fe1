"""How fast a corpus loads: loso reads, validates and hashes it, pandas.read_json only reads it.

Two files, each read in turn by both, every time in a fresh process whose imports do not count: the
required columns alone, and the rows of the demo corpus, with all columns that a build writes, again
and again under new source names.

    python bench/load.py --rows 1000000 --json load.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WRITE = """
import json, sys
from loso.corpus.load import load_corpus
from loso.data import demo_corpus_path
from loso.schema import REQUIRED_NUMBERS, REQUIRED_TEXTS
path, rows, layout = sys.argv[1], int(sys.argv[2]), sys.argv[3]
measured = load_corpus(demo_corpus_path()).rows
if layout == "required":
    measured = measured.select(*REQUIRED_TEXTS, *REQUIRED_NUMBERS)
lines = [json.dumps(row) for row in measured.iter_rows(named=True)]
with open(path, "w", encoding="utf-8") as stream:
    for at in range(rows):
        take, line = divmod(at, len(lines))
        stream.write(lines[line].replace('"src": "', f'"src": "take{take}_', 1) + "\\n")
"""

READ = """
import json, resource, sys, time
{imports}
start = time.perf_counter()
table = {call}
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({{"rows": len(table), "seconds": seconds, "peak_mib": peak / 1024}}))
"""

READERS = {
    "loso": READ.format(
        imports="from loso.corpus.load import load_corpus", call="load_corpus(sys.argv[1])"
    ),
    "pandas": READ.format(
        imports="import pandas", call="pandas.read_json(sys.argv[1], lines=True)"
    ),
}
LAYOUTS = {"required": "the required columns", "built": "all columns that a build writes"}


def python(code: str, *words: str) -> str:
    """Run `code` in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measure(layout: str, rows: int, repeats: int) -> dict[str, Any]:
    """Return medians of time and peak memory of each reader, and how often loso is faster."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in READERS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.jsonl"
        python(WRITE, str(path), str(rows), layout)
        size = path.stat().st_size
        for _ in range(repeats):
            for name, code in READERS.items():
                run = json.loads(python(code, str(path)))
                if run.pop("rows") != rows:
                    sys.exit(f"{name} lost rows")
                runs[name].append(run)
    readers: dict[str, dict[str, float]] = {
        name: {key: statistics.median(run[key] for run in of) for key in of[0]}
        for name, of in runs.items()
    }
    ratio = readers["pandas"]["seconds"] / readers["loso"]["seconds"]
    return {"rows": rows, "bytes": size, "readers": readers, "runs": runs, "ratio": ratio}


def main() -> None:
    """Measure, print, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description="How fast a corpus loads, beside pandas.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layout", choices=LAYOUTS, action="append", help="both unless given")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    results = {}
    for layout in options.layout or LAYOUTS:
        result = results[layout] = measure(layout, options.rows, options.repeats)
        size = f"{result['rows']} rows, {result['bytes'] / 1e6:.0f} MB"
        print(f"{LAYOUTS[layout]}: {size}, median of {options.repeats}")
        for name, of in result["readers"].items():
            print(f"  {name:8}{of['seconds']:8.2f} s{of['peak_mib']:8.0f} MiB at most")
        print(f"  loso is {result['ratio']:.1f} times as fast")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
