"""A build of many small cells while its ffmpeg children are killed at random, again and again.

The command is given again, as a user would, for as long as it does not end well. In the end the
corpus must be that of a build that nobody disturbed, to the byte, and no process and no file left.

    python bench/soak.py --cells 200 --json soak.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from loso.video.ffmpeg import find_ffmpeg

CLIPS = 4
MOST_CALLS = 100
GLANCE_S = 0.05
MOST_ZOMBIE_S = 1.0
"""From here on a child that ended was not waited for: glances apart, that takes no time."""
PROGRAM = "from loso.cli import main; main()"
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)


def generate(program: str, folder: Path) -> list[Path]:
    """Write small clips that differ."""
    paths = []
    for at in range(CLIPS):
        paths.append(folder / f"clip{at}.mkv")
        source = ("-f", "lavfi", "-i", f"testsrc2=size=128x96:rate={24 + at}", "-frames:v", "6")
        coding = ("-vf", "format=yuv420p", "-c:v", "ffv1", f"{paths[-1]}")
        subprocess.run([program, "-loglevel", "error", *source, *coding], check=True)
    return paths


def counting(program: str, folder: Path) -> Path:
    """Write a program that is ffmpeg, and counts how often it is to code a clip."""
    path = folder / "counting"
    count = f'*-stats_enc_post*|*-vstats_file*) echo >> "{folder}/starts" ;;'
    path.write_text(f'#!/bin/sh\ncase "$*" in {count} esac\nexec "{program}" "$@"\n')
    path.chmod(0o755)
    return path


class Process(NamedTuple):
    """A process as /proc shows it."""

    number: int
    parent: int
    state: str
    words: str


def processes() -> Iterator[Process]:
    """Yield all that run here."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(") ")[2].split()[:2]
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        yield Process(int(entry.name), int(parent), state, words)


class Killer(threading.Thread):
    """Kills one of the ffmpeg children of `parent` now and then, and times the dead among them."""

    def __init__(self, program: str, seed: int, every_s: float) -> None:
        super().__init__()
        self.parent = 0
        self.kills = 0
        self.longest_zombie_s = 0.0
        self._program, self._random, self._share = program, random.Random(seed), GLANCE_S / every_s
        self._dead: dict[int, float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        """Look and kill until told to stop."""
        while not self._ended.wait(GLANCE_S):
            children = [process for process in processes() if process.parent == self.parent]
            self._time_the_dead({each.number for each in children if each.state == "Z"})
            coding = [each.number for each in children if each.words.startswith(self._program)]
            if coding and self._random.random() < self._share:
                with suppress(ProcessLookupError):
                    os.kill(self._random.choice(coding), self._random.choice(SIGNALS))
                    self.kills += 1

    def _time_the_dead(self, dead: set[int]) -> None:
        now = time.monotonic()
        self._dead = {number: self._dead.get(number, now) for number in dead}
        ages = [now - since for since in self._dead.values()]
        self.longest_zombie_s = max([self.longest_zombie_s, *ages])

    def stop(self) -> None:
        """End the killing."""
        self._ended.set()
        self.join()


def build(
    clips: Sequence[Path], out: Path, options: Sequence[str], killer: Killer | None = None
) -> subprocess.CompletedProcess[str]:
    """Return how one call of `loso corpus build` ended; its children are `killer`'s."""
    call = ["corpus", "build", *map(str, clips), "--out", f"{out}", *options]
    environment = os.environ | {"TMPDIR": f"{out.parent}/tmp"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *call],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        if killer:
            killer.parent = child.pid
        told, said = child.communicate()
    if "Traceback" in said:
        raise SystemExit(said)
    return subprocess.CompletedProcess(call, child.returncode, told, said)


def soak(cells: int, every_s: float, seed: int, jobs: int) -> dict[str, Any]:
    """Return what a disturbed build came to."""
    program = find_ffmpeg().path
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        clips = generate(program, folder)
        qualities = ",".join(str(1 + at / 4) for at in range(cells // CLIPS))
        coding = ("--encoder", "libx264", "--preset", "ultrafast", "--quality", qualities)
        options = (*coding, "--jobs", f"{jobs}", "--json")
        whole = build(clips, folder / "whole.jsonl", options)
        if whole.returncode:
            raise SystemExit(whole.stderr)

        killer = Killer(program, seed, every_s)
        killer.start()
        started = time.monotonic()
        codes: list[int] = []
        failed = 0
        try:
            while not codes or (codes[-1] and len(codes) < MOST_CALLS):
                ffmpeg = ("--ffmpeg", f"{counting(program, folder)}")
                call = build(clips, folder / "killed.jsonl", (*options, *ffmpeg), killer)
                codes.append(call.returncode)
                if call.returncode == 1:
                    failed += len(json.loads(call.stdout.splitlines()[0])["missing"])
        finally:
            killer.stop()
        seconds = time.monotonic() - started
        measured = cells // CLIPS * CLIPS
        built = folder / "killed.jsonl"
        expected = {"counting", "starts", "tmp", *(clip.name for clip in clips)}
        for corpus in ("whole", "killed"):
            expected |= {f"{corpus}.jsonl", f"{corpus}.manifest.json", f"{corpus}.jsonl.parts"}
        left = [path for path in folder.iterdir() if path.name not in expected]
        left += (folder / "tmp").iterdir()
        for parts in folder.glob("*.parts"):
            left += [path for path in parts.iterdir() if path.suffix != ".part"]
        return {
            "cells": measured,
            "kills": killer.kills,
            "calls": len(codes),
            "exit_codes": codes,
            "cells_that_failed_twice": failed,
            "retries": len((folder / "starts").read_text().splitlines()) - measured,
            "seconds": round(seconds, 1),
            "complete": not codes[-1],
            "same_bytes": built.exists()
            and built.read_bytes() == (folder / "whole.jsonl").read_bytes(),
            "leftovers": [str(path.relative_to(folder)) for path in left if path.name != ".lock"],
            "processes_left": sum(name in process.words for process in processes()),
            "longest_zombie_s": round(killer.longest_zombie_s, 2),
        }


def held(found: dict[str, Any]) -> bool:
    """Tell whether the disturbed build ended as an undisturbed one, and left nothing."""
    whole = found["complete"] and found["same_bytes"]
    clean = not found["leftovers"] and not found["processes_left"]
    return whole and clean and found["longest_zombie_s"] < MOST_ZOMBIE_S


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--every", type=float, default=0.15, help="seconds from kill to kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = soak(arguments.cells, arguments.every, arguments.seed, arguments.jobs)
    for key, value in found.items():
        print(f"{key:24} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if held(found) else 1)


if __name__ == "__main__":
    main()
