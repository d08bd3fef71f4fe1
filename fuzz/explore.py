"""Tries every target for as long as it is told to, and keeps what was neither taken nor refused.

With atheris, which `make fuzz` installs on Linux, inputs are found by coverage of loso's own code,
else by chance alone. Each that brings up a fault is written to a file, and the exit code is 1.

    python fuzz/explore.py --seconds 60 --target "corpus lines"
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

MOST_FAULTS = 5
"""Of one target: more are most often the same one again."""

HERE = Path(__file__).resolve()


def by_chance(name: str, seconds: float, seed: int, faults: Path) -> dict[str, Any]:
    """Return how often a target was tried with mangled examples, and what became of it."""
    from mangle import mangle
    from targets import TARGETS, Hung, attempt, make_material

    target = TARGETS[name]
    outcomes: Counter[str] = Counter()
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        material = make_material(Path(folder))
        examples = target.examples(material.whole)
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(found) < MOST_FAULTS:
            random = Random(seed)
            data = mangle(random.choice(examples), random)
            try:
                outcomes[attempt(target, data, material)] += 1
            except (Exception, Hung) as fault:  # noqa: BLE001 (all that is no refusal is looked for)
                last = traceback.extract_tb(fault.__traceback__)[-1]
                place = f"{type(fault).__name__} at {Path(last.filename).name}:{last.lineno}"
                if place not in found:
                    found[place] = f"{place}: {str(fault)[:200]}"
                    _keep(faults, name, data)
            seed += 1
    return {"engine": "chance", "tried": outcomes.total(), "outcomes": outcomes, "faults": found}


def by_coverage(name: str, seconds: float, faults: Path) -> dict[str, Any]:
    """Return the same of atheris, which ends its process: it runs in one of its own."""
    words = [sys.executable, HERE, "--child", name, "--seconds", f"{seconds}", "--faults", faults]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:  # the child cannot remove its own
        words += ["--folder", folder]
        ended = subprocess.run(
            list(map(str, words)), capture_output=True, text=True, errors="replace", check=False
        )
    units = re.search(r"number_of_executed_units: (\d+)", ended.stderr)
    found = {}
    if ended.returncode or units is None:
        found["fault"] = ended.stderr[-2000:]
    tried = int(units[1]) if units else 0
    return {"engine": "atheris", "tried": tried, "outcomes": {}, "faults": found}


def child(name: str, seconds: float, faults: Path, folder: Path) -> None:
    """Let atheris try one target, in a folder that is there; does not return."""
    import atheris

    with atheris.instrument_imports(include=["loso"]):
        from mangle import mangle
        from targets import TARGETS, attempt, make_material
    target = TARGETS[name]
    material = make_material(folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for at, example in enumerate(target.examples(material.whole)):
        (corpus / f"{at}").write_bytes(example)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, most))
        return mangle(data, Random(seed))[:most]

    options = [f"-max_total_time={int(seconds)}", "-print_final_stats=1", "-rss_limit_mb=4096"]
    options += ["-max_len=65536", f"-artifact_prefix={faults}/{_plain(name)}-"]
    faults.mkdir(parents=True, exist_ok=True)
    arguments = [sys.argv[0], *options, str(corpus)]
    atheris.Setup(
        arguments, lambda data: attempt(target, data, material) and None, custom_mutator=mutate
    )
    atheris.Fuzz()


def _plain(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _keep(faults: Path, name: str, data: bytes) -> None:
    faults.mkdir(parents=True, exist_ok=True)
    at = len(list(faults.glob(f"{_plain(name)}-*")))
    (faults / f"{_plain(name)}-{at}").write_bytes(data)


def main() -> None:
    """Try the targets one after the other, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each target")
    parser.add_argument("--target", action="append", help="by name; all by default")
    parser.add_argument("--seed", type=int, default=0, help="where chance begins")
    parser.add_argument("--engine", choices=("auto", "atheris", "chance"), default="auto")
    parser.add_argument("--faults", type=Path, default=Path("fuzz/faults"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # of numbers out of all range
    if asked.child:
        child(asked.child, asked.seconds, asked.faults, asked.folder)
    from targets import TARGETS

    has_atheris = find_spec("atheris") is not None
    engine = asked.engine if asked.engine != "auto" else ("chance", "atheris")[has_atheris]
    results = {}
    for name in asked.target or TARGETS:
        if engine == "atheris":
            found = by_coverage(name, asked.seconds, asked.faults)
        else:
            found = by_chance(name, asked.seconds, asked.seed, asked.faults)
        results[name] = found
        outcomes = ", ".join(f"{count} {kind}" for kind, count in found["outcomes"].items())
        print(f"{name:32} {found['tried']:8} {outcomes}", flush=True)
        for fault in found["faults"].values():
            print(f"    FAULT {fault}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if any(found["faults"] for found in results.values()) else 0)


if __name__ == "__main__":
    main()
