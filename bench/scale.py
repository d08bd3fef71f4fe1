"""A build on a cluster of this machine beside a local one: overhead, throughput, cost of a part.

A scheduler and its workers run here as processes of their own, with a thread each. Both ways take
turns and must write the same corpus. What a cell costs is told from builds of two sizes: the slope
is a cell's, the rest a build's. Core time is what the system books to client, scheduler and workers
for all that they do beside ffmpeg. With clips, instead, the core time of ffmpeg in their cells, by
encoder.

    python bench/scale.py
    python bench/scale.py clip.mp4 --frames 12 --encoder libx264 --encoder libsvtav1:10
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loso.corpus.build import build_corpus
from loso.corpus.choices import read_choices
from loso.corpus.parts import Parts
from loso.corpus.plan import BuildSettings, fingerprint, plan_cells
from loso.executors import Cluster, connect, resources_here
from loso.recipe import ClusterLimits
from loso.video.clips import ClipSettings, open_clip
from loso.video.encoders import encoder_named
from loso.video.ffmpeg import Ffmpeg, FfmpegSession, find_ffmpeg

SIZES = (8, 72)
"""Cells of the builds whose difference tells what a cell costs."""
LARGER = 12
"""Larger cells of the builds that tell the throughput."""
NO_WORK = 1000
"""Tasks that do nothing, to see how many a client can hand out."""


@dataclass(frozen=True)
class Way:
    """Where a build measures: what tells it so, and the processes that do its work."""

    where: dict[str, Any]
    processes: tuple[int, ...] = ()

    def core_s(self) -> float:
        """Return the core time of this process and of the others so far, ffmpeg apart."""
        here = resource.getrusage(resource.RUSAGE_SELF)
        ticks = 0
        for process in self.processes:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return here.ru_utime + here.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def cluster_of(folder: Path, workers: int) -> Iterator[Way]:
    """Yield a scheduler with so many workers, all ended afterwards."""
    folder.mkdir()
    started = []
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    inside = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    inside += ["--scheduler-file", file]
    worker = ["--nthreads", 1, "--no-nanny", "--local-directory", folder]
    commands = [[*dask, "scheduler", *inside, "--port", 0]]
    commands += [[*dask, "worker", *inside, *worker]] * workers
    with ExitStack() as stack, (folder / "log").open("w") as log:
        for command in commands:
            words = [str(word) for word in command]
            process = subprocess.Popen(words, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(process.pid)
            while not file.exists():
                time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        with connect(address, ClusterLimits(connect_s=30.0)) as cluster:
            while number_at(cluster) < workers:
                time.sleep(0.1)
            yield Way({"cluster": cluster}, tuple(started))


def number_at(cluster: Cluster) -> int:
    """Return how many workers are there. The crew that counts them ends: it would go on asking."""
    with cluster.crew(resources_here) as crew:
        return len(crew.muster().result())


def clip(ffmpeg: Ffmpeg, path: Path, size: str, frames: int) -> Path:
    """Write a clip of moving fractals, coded without loss."""
    opening = ["-f", "lavfi", "-i", f"mandelbrot=size={size}:rate=30", "-frames:v", f"{frames}"]
    coding = ["-c:v", "ffv1", "-pix_fmt", "yuv420p", f"{path}"]
    subprocess.run([ffmpeg.path, "-nostdin", "-loglevel", "error", *opening, *coding], check=True)
    return path


def settings_of(cells: int, preset: str = "ultrafast", **options: Any) -> BuildSettings:
    """Return settings that make so many cells of a clip."""
    rates = ",".join(f"{20 + 20 * number / cells:.4f}" for number in range(cells))
    choices = read_choices(["libx264"], quality=[rates], preset=[preset])
    return BuildSettings(choices=choices, clips=ClipSettings(**options))


def timed(path: Path, settings: BuildSettings, way: Way) -> tuple[float, float, bytes]:
    """Return the seconds and core-seconds of a build from nothing, and the corpus."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "corpus.jsonl"
        started, booked = time.perf_counter(), way.core_s()
        report = build_corpus([path], settings, find_ffmpeg(), out=out, **way.where)
        seconds, core_s = time.perf_counter() - started, way.core_s() - booked
        if report.missing:
            sys.exit(f"cells are missing: {report.missing}")
        return seconds, core_s, out.read_bytes()


def in_turn(
    path: Path, settings: BuildSettings, ways: dict[str, Way], repeats: int
) -> dict[str, tuple[float, float]]:
    """Return the median seconds and core-seconds of a build each way; all must write the same."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        written = {}
        for name, way in ways.items():
            seconds, core_s, written[name] = timed(path, settings, way)
            runs[name].append((seconds, core_s))
        if len(set(written.values())) > 1:
            sys.exit(f"the corpora differ: {_difference(written)}")
    medians = {}
    for name, of in runs.items():
        medians[name] = (statistics.median(s for s, _ in of), statistics.median(c for _, c in of))
    return medians


def _difference(written: dict[str, bytes]) -> str:
    """Return the first lines in which two corpora differ."""
    (first, ours), *others = written.items()
    for name, theirs in others:
        for one, other in zip(ours.splitlines(), theirs.splitlines(), strict=False):
            if one != other:
                return f"{first} {one.decode()}, {name} {other.decode()}"
    return "one is longer"


def overhead(path: Path, cluster: Way, repeats: int) -> dict[str, dict[str, float]]:
    """Return what a tiny cell takes, two at a time, and what a build takes beside its cells."""
    ways = {"here": Way({"jobs": 2}), "on a cluster": cluster}
    few, many = (in_turn(path, settings_of(size, frames=1), ways, repeats) for size in SIZES)
    more = SIZES[1] - SIZES[0]
    found = {}
    for name in ways:
        slope = (many[name][0] - few[name][0]) / more
        found[name] = {
            "cells_a_second": 1 / slope,
            "core_ms_a_cell": 1000 * (many[name][1] - few[name][1]) / more,
            "s_a_build": few[name][0] - SIZES[0] * slope,
        }
    return found


def handed_out(way: Way) -> float:
    """Return how many tasks without any work go to the workers and back in a second."""
    with way.where["cluster"].crew(resources_here) as crew:
        crew.muster().result()
        crew.admit(lambda _: frozenset({""}))
        crew.submit(abs, -1).result()
        started = time.perf_counter()
        for future in [crew.submit(abs, -number) for number in range(NO_WORK)]:
            future.result()
        return NO_WORK / (time.perf_counter() - started)


def throughput(path: Path, clusters: dict[int, Way], repeats: int) -> dict[str, float]:
    """Return the cells a second of larger cells, by the number of workers, here and there."""
    ways = {}
    for count, cluster in clusters.items():
        ways |= {f"here {count}": Way({"jobs": count}), f"on a cluster {count}": cluster}
    medians = in_turn(path, settings_of(LARGER, "medium", frames=24), ways, repeats)
    return {name: LARGER / seconds for name, (seconds, _) in medians.items()}


def cost_of_a_part(path: Path, frames: int) -> dict[str, float]:
    """Return the bytes of a part of so many frames, of its rows, and its milliseconds on disk."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "corpus.jsonl"
        build_corpus([path], settings_of(1, frames=frames), find_ffmpeg(), out=out)
        store = Parts(out.with_name(f"{out.name}.parts"))
        (part,) = store.folder.glob("*.part")
        measured = store.load(part.stem)
        if measured is None:
            sys.exit("the part cannot be read")
        took = {}
        for name, call in (
            ("save_ms", lambda: store.save(part.stem, measured)),
            ("load_ms", lambda: store.load(part.stem)),
        ):
            times = []
            for _ in range(20):
                started = time.perf_counter()
                call()
                times.append(1000 * (time.perf_counter() - started))
            took[name] = statistics.median(times)
        sizes = {"bytes": part.stat().st_size, "rows_bytes": out.stat().st_size}
        return {"frames": frames, **sizes, **took}


def planning(ffmpeg: Ffmpeg, path: Path, sources: int = 100, cells: int = 96) -> float:
    """Return the milliseconds of planning a cell, its name and its fingerprint."""
    settings = settings_of(cells)
    with FfmpegSession(ffmpeg) as session:
        one = open_clip(path, settings.clips, session, timeout_s=60.0)
    clips = [replace(one, src=f"{one.src}{number}") for number in range(sources)]
    started = time.perf_counter()
    planned = plan_cells(clips, settings)
    marks = {fingerprint(cell, settings.model, {}, two_step=False) for cell in planned}
    if not marks:
        sys.exit("nothing was planned")
    return 1000 * (time.perf_counter() - started) / len(planned)


def core_seconds(
    clips: Sequence[Path], ways: Sequence[str], frames: int, qualities: int
) -> dict[str, float]:
    """Return the core-seconds of a frame by `encoder` or `encoder:preset`, mean over qualities."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    found = {}
    for name in ways:
        encoder, _, preset = name.partition(":")
        low, high = encoder_named(encoder).quality_range
        steps = [0.35 + 0.4 * number / max(qualities - 1, 1) for number in range(qualities)]
        rates = ",".join(f"{round(low + (high - low) * step)}" for step in steps)
        choices = read_choices([encoder], quality=[rates], preset=[preset] if preset else [])
        settings = BuildSettings(choices=choices, clips=ClipSettings(frames=frames))
        with tempfile.TemporaryDirectory() as folder:
            before = spent()
            out = Path(folder) / "corpus.jsonl"
            report = build_corpus(clips, settings, find_ffmpeg(), out=out)
            found[name] = (spent() - before) / (report.cells * frames)
            print(f"{name:24}{found[name]:10.3f} core-seconds a frame", flush=True)
    return found


def main() -> None:
    """Measure, print, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description="Builds on a cluster of this machine's own.")
    parser.add_argument("clips", nargs="*", type=Path, help="to measure core-seconds with")
    parser.add_argument("--frames", type=int, default=12, help="of each of them")
    parser.add_argument(
        "--encoder", action="append", help="NAME or NAME:PRESET; libx264 unless given"
    )
    parser.add_argument("--qualities", type=int, default=2, help="of each encoder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    ffmpeg = find_ffmpeg()
    result: dict[str, Any] = {"cpus": os.cpu_count()}
    if options.clips:
        result["core_seconds_a_frame"] = core_seconds(
            options.clips, options.encoder or ["libx264"], options.frames, options.qualities
        )
    else:
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            folder = Path(name)
            tiny = clip(ffmpeg, folder / "tiny.mkv", "96x64", 300)
            larger = clip(ffmpeg, folder / "larger.mkv", "640x360", 24)
            clusters = {
                count: stack.enter_context(cluster_of(folder / f"{count}", count))
                for count in (1, 2)
            }
            result["overhead"] = overhead(tiny, clusters[2], options.repeats)
            result["tasks_a_second"] = handed_out(clusters[2])
            result["cells_a_second"] = throughput(larger, clusters, options.repeats)
            result["part"] = cost_of_a_part(tiny, 300)
            result["planning_ms_a_cell"] = planning(ffmpeg, tiny)
        _print(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _print(result: dict[str, Any]) -> None:
    rates, part = result["cells_a_second"], result["part"]
    for name, of in result["overhead"].items():
        print(
            f"tiny cells {name}: {of['cells_a_second']:.1f} a second, {of['core_ms_a_cell']:.1f} "
            f"core-ms each beside ffmpeg, {of['s_a_build']:.2f} s a build beside its cells"
        )
    print(f"tasks without work: {result['tasks_a_second']:.0f} a second")
    for count in (1, 2):
        here, there = rates[f"here {count}"], rates[f"on a cluster {count}"]
        print(
            f"larger cells, {count} at a time: {here:.2f} a second here, {there:.2f} on a cluster"
        )
    gain = rates["on a cluster 2"] / rates["on a cluster 1"]
    print(f"the second worker: {gain:.2f} times as fast")
    print(
        f"a part of {part['frames']} frames: {part['bytes']} bytes, {part['save_ms']:.2f} ms to "
        f"keep, {part['load_ms']:.2f} ms to read; its rows {part['rows_bytes']} bytes"
    )
    print(f"planning: {result['planning_ms_a_cell']:.2f} ms a cell")


if __name__ == "__main__":
    main()
