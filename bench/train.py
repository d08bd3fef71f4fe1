"""How fast members train: the compiled engine beside the plain PyTorch loop and batched PyTorch.

All run in turn, each on the first epochs of the standard run, and are scaled to the whole of it by
their optimiser steps: 5 seeds x 9 sources x 200 epochs, 5,640 rows, 20-64-64-1, batch 32. The
command `loso train` runs whole, from its start to its last file.

    python bench/train.py --json train.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from loso import machine
from loso.engine import Member, TrainingPlan, train_members
from loso.engine._kernel import fma_peak
from loso.engine.native import instruction_set
from loso.engine.network import layer_shapes
from loso.recipe import Recipe
from loso.schema import CANONICAL_6

ROWS, SEEDS, FOLDS = 5640, 5, 9
STANDARD = Recipe()


def make_plan(rows: int, seeds: int, recipe: Recipe) -> TrainingPlan:
    """Return a plan on made-up rows: seeds x nine sources, each held out once."""
    random = np.random.default_rng(0)
    inputs = random.standard_normal((rows, 20), np.float32)
    target = (50 + 10 * inputs[:, 0] - 5 * inputs[:, 1] * inputs[:, 2]).astype(np.float32)
    source = np.arange(rows) * FOLDS // rows
    kept = [np.flatnonzero(source != fold).astype(np.int32) for fold in range(FOLDS)]
    mean, std = np.zeros(20), np.ones(20)
    members = tuple(
        Member(seed, fold, f"source{fold}", kept[fold], mean, std)
        for seed in range(seeds)
        for fold in range(FOLDS)
    )
    return TrainingPlan(inputs, target, members, recipe)


def steps_of(plan: TrainingPlan) -> int:
    """Return the optimiser steps of all members."""
    return sum(plan.steps(member) for member in plan.members)


def operations_a_step(recipe: Recipe) -> float:
    """Return the floating-point operations of the matrix products of a full batch.

    Each weight is used forwards, for its gradient, and, but in the first layer, for its input's.
    """
    first, *later = [out * into for out, into in layer_shapes(20, recipe)]
    return 2.0 * recipe.batch_size * (2 * first + 3 * sum(later))


def peak_of(threads: int) -> float:
    """Return the multiply-adds' operations a second of `threads` cores at once."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(lambda _: fma_peak(instruction_set(), 0.2), range(threads)))


@dataclass(frozen=True)
class Run:
    """One line of the table: what is trained, by which engine."""

    name: str
    plan: TrainingPlan
    engine: str = "native"
    threads: int = 1

    def seconds(self) -> float:
        """Train it and return the wall time."""
        started = time.perf_counter()
        train_members(self.plan, engine=self.engine, device="cpu", threads=self.threads)
        return time.perf_counter() - started


def measure(runs: Sequence[Run], repeats: int) -> list[dict[str, Any]]:
    """Return the median time of every run, the runs taken in turn, beside the peak of then."""
    seconds: list[list[float]] = [[] for _ in runs]
    peaks: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for i, run in enumerate(runs):
            peaks[i].append(peak_of(run.threads))
            seconds[i].append(run.seconds())
    lines = []
    for run, taken, peak in zip(runs, seconds, peaks, strict=True):
        steps, median = steps_of(run.plan), statistics.median(taken)
        work = steps * operations_a_step(run.plan.recipe)
        lines.append(
            {
                "name": run.name,
                "engine": run.engine,
                "threads": run.threads,
                "rows": len(run.plan.target),
                "members": len(run.plan.members),
                "hidden": run.plan.recipe.hidden,
                "steps": steps,
                "seconds": taken,
                "us_a_step": 1e6 * median / steps,
                "share_of_fma_peak": work / median / statistics.median(peak),
            }
        )
    return lines


def standard_runs(cores: int) -> list[Run]:
    """Return the engines on one and on all cores, each on a piece that takes it some seconds."""
    whole = make_plan(ROWS, SEEDS, replace(STANDARD, epochs=4))
    short = replace(whole, recipe=replace(STANDARD, epochs=1))
    few = replace(short, members=short.members[:4])
    pieces = {"native": whole, "batched": short, "reference": few}
    return [
        Run("standard run", plan, engine, threads)
        for threads in sorted({1, cores})
        for engine, plan in pieces.items()
    ]


def growth_runs(cores: int) -> list[Run]:
    """Return native runs of growing rows, members and width."""
    rows = [
        Run(f"{n} rows", make_plan(n, 1, replace(STANDARD, epochs=500_000 // n)), threads=cores)
        for n in (5_000, 50_000, 500_000)
    ]
    members = [
        Run(f"{9 * n} members", make_plan(ROWS, n, replace(STANDARD, epochs=2)), threads=cores)
        for n in (1, 5, 20)
    ]
    hidden = [
        Run(f"hidden {n}", make_plan(ROWS, 1, replace(STANDARD, epochs=1, hidden=n)))
        for n in (16, 32, 64, 128, 256, 512)
    ]
    return rows + members + hidden


def write_corpus(path: Path) -> None:
    """Write made-up rows of the standard run's size: nine sources, two encoders."""
    random = np.random.default_rng(0)
    features = random.uniform(0.5, 1.0, (ROWS, len(CANONICAL_6)))
    number = np.arange(ROWS)
    pl.DataFrame(
        {
            "src": [f"source{n}" for n in number * FOLDS // ROWS],
            "encoder": np.where(number % 2, "libx264", "libx265"),
            "cq": 20 + number // 2 % 4 * 5,
            "frame_index": number // 8,
            "vmaf": 100 * features[:, :2].prod(axis=1),
            **{name: features[:, i] for i, name in enumerate(CANONICAL_6)},
        }
    ).write_ndjson(path)


def seconds_of_command(repeats: int) -> list[float]:
    """Return the wall times of `loso train` on the standard run, all cores, start and files in."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus.jsonl")
        write_corpus(corpus)
        for i in range(repeats):
            command = [str(Path(sys.executable).with_name("loso")), "train", "--engine", "native"]
            command += ["--corpus", str(corpus), "--out-dir", str(Path(folder, str(i)))]
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - started)
    return seconds


def ratios(lines: Sequence[dict[str, Any]], command_s: float, cores: int) -> dict[str, float]:
    """Return how many times as fast native is as the others, and all cores as one.

    `command_s` is the time of the whole command on all cores.
    """
    us = {(line["engine"], line["threads"]): line["us_a_step"] for line in lines}
    reference, batched = (
        min(us[engine, threads] for threads in {1, cores}) for engine in ("reference", "batched")
    )
    all_steps = steps_of(make_plan(ROWS, SEEDS, STANDARD))
    return {
        "reference / native": reference / us["native", cores],
        "reference / whole command": reference * all_steps / 1e6 / command_s,
        "batched / native": batched / us["native", cores],
        "batched / whole command": batched * all_steps / 1e6 / command_s,
        f"native, 1 / {cores} threads": us["native", 1] / us["native", cores],
    }


def main() -> None:
    """Measure, print, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description="How fast members train.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    cores = machine.cores().usable
    standard = measure(standard_runs(cores), options.repeats)
    command = seconds_of_command(options.repeats)
    growth = measure(growth_runs(cores), options.repeats)
    all_steps = steps_of(make_plan(ROWS, SEEDS, STANDARD))
    print(f"{instruction_set()}, {cores} cores, median of {options.repeats}")
    print(
        f"{'':16}{'engine':11}{'threads':>8}{'us a step':>11}{'whole run':>12}{'of FMA peak':>13}"
    )
    for line in standard + growth:
        seconds = line["us_a_step"] * all_steps / 1e6
        whole = f"{seconds:10.1f} s" if line in standard else ""
        print(
            f"{line['name']:16}{line['engine']:11}{line['threads']:8}{line['us_a_step']:11.2f}"
            f"{whole:>12}{line['share_of_fma_peak']:12.0%}"
        )
    command_s = statistics.median(command)
    print(f"{'loso train':16}{'native':11}{cores:8}{command_s:21.1f} s")
    compared = ratios(standard, command_s, cores)
    for name, ratio in compared.items():
        print(f"{name}: {ratio:.1f}")
    if options.json:
        result = {"isa": instruction_set(), "cores": cores, "lines": standard + growth}
        result |= {"command_s": command} | compared
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
