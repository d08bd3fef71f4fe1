"""The same cells measured by loso and by the old way: encode to a file, decode to raw, score raw.

Both run the same number of cells at a time, in turn, and must reach the same scores. Disk is the
most that lay in the working folder at any moment, the clips themselves apart.

    python bench/corpus.py [CLIP...] --frames 30 --jobs 2 --json corpus.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, Self

from loso.corpus.build import build_corpus
from loso.corpus.choices import Choice, read_choices
from loso.corpus.plan import BuildSettings
from loso.video.clips import ClipSettings
from loso.video.ffmpeg import Ffmpeg, find_ffmpeg

GENERATED = {
    "mandelbrot": "mandelbrot=size=1280x720:rate=30",
    "noise": "testsrc2=size=1280x720:rate=30,noise=alls=12:allf=t",
}
Scores = dict[str, list[float]]


def run(ffmpeg: Ffmpeg, *words: object) -> None:
    """Run ffmpeg, one thread for whatever it does."""
    quiet = ["-nostdin", "-y", "-loglevel", "error", "-filter_threads", "1", "-threads", "1"]
    command = [ffmpeg.path, *quiet, *map(str, words)]
    subprocess.run(command, check=True, env=os.environ | {"SVT_LOG": "1"})


def generate(ffmpeg: Ffmpeg, folder: Path, frames: int) -> list[Path]:
    """Write clips of moving fractals and of noise, coded nearly without loss."""
    paths = []
    for name, source in GENERATED.items():
        path = folder / f"{name}.mp4"
        coding = ("-c:v", "libx264", "-crf", 8, "-preset", "ultrafast", "-pix_fmt", "yuv420p")
        run(ffmpeg, "-f", "lavfi", "-i", source, "-frames:v", frames, *coding, path)
        paths.append(path)
    return paths


def the_new_way(
    ffmpeg: Ffmpeg, clips: Sequence[Path], settings: BuildSettings, folder: Path, jobs: int
) -> Scores:
    """Return the scores of each cell as `loso corpus build` measures them."""
    out = folder / "corpus.jsonl"
    build_corpus(clips, settings, ffmpeg, out=out, jobs=jobs)
    scores: Scores = {}
    for line in out.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        scores.setdefault(row["clip"], []).append(row["vmaf"])
    return scores


def the_old_way(
    ffmpeg: Ffmpeg, clips: Sequence[Path], settings: BuildSettings, folder: Path, jobs: int
) -> Scores:
    """Return the scores of each cell by way of coded files and raw video on disk.

    Every clip becomes raw video once; a cell codes the clip to a file, decodes that to raw video,
    scores raw against raw, and takes its files away.
    """
    width, height = settings.clips.scale or (0, 0)
    resize = f"scale={width}:{height}:flags=bicubic,format=yuv420p"
    look = ("-vf", f"trim=end_frame={settings.clips.frames},{resize}")
    raw = ("-pix_fmt", "yuv420p", "-fps_mode", "passthrough", "-f", "rawvideo")
    opening = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", f"{width}x{height}", "-i")

    def to_raw(clip: Path) -> None:
        run(ffmpeg, "-i", clip, *look, *raw, folder / f"{clip.stem}.yuv")

    def work(cell: tuple[Path, Choice]) -> tuple[str, list[float]]:
        clip, choice = cell
        name = f"{clip.stem}_{choice.encoder.name}_{choice.preset}_{choice.rate.label}_{height}p"
        coded, distorted, log = (folder / f"{name}.{end}" for end in ("mkv", "yuv", "json"))
        arguments = choice.encoder.arguments(preset=choice.preset, rate=choice.rate, threads=1)
        coding = (*arguments, "-pix_fmt", choice.encoder.coding_format("yuv420p"))
        run(ffmpeg, "-i", clip, *look, "-fps_mode", "passthrough", "-an", *coding, coded)
        run(ffmpeg, "-i", coded, *raw, distorted)
        sides = (*opening, distorted, *opening, folder / f"{clip.stem}.yuv")
        vmaf = f"libvmaf=log_fmt=json:log_path={log}:n_threads=1"
        run(ffmpeg, *sides, "-filter_complex", vmaf, "-f", "null", "-")
        frames = json.loads(log.read_text(encoding="utf-8"))["frames"]
        for path in (coded, distorted, log):
            path.unlink()
        return name, [frame["metrics"]["vmaf"] for frame in frames]

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(to_raw, clips))
        return dict(pool.map(work, product(clips, settings.choices)))


class DiskWatch:
    """Samples how many bytes lie in a folder while its block runs."""

    def __init__(self, folder: Path, every_s: float = 0.02) -> None:
        self.folder, self.every_s, self.peak_bytes = folder, every_s, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _sample(self) -> None:
        while not self._done.wait(self.every_s):
            total = 0
            for parent, _, names in os.walk(self.folder):
                for name in names:
                    with suppress(FileNotFoundError):
                        total += Path(f"{parent}/{name}").stat().st_size
            self.peak_bytes = max(self.peak_bytes, total)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


WAYS: dict[str, Callable[..., Scores]] = {"loso": the_new_way, "old way": the_old_way}


def measure(
    clips: Sequence[Path], settings: BuildSettings, *, jobs: int, repeats: int
) -> dict[str, Any]:
    """Return medians of time and of peak disk of both ways, and their ratios old / loso."""
    ffmpeg = find_ffmpeg()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    cells = 0
    for _ in range(repeats):
        scores = {}
        for name, way in WAYS.items():
            with tempfile.TemporaryDirectory() as folder, DiskWatch(Path(folder)) as watch:
                started = time.perf_counter()
                scores[name] = way(ffmpeg, clips, settings, Path(folder), jobs)
                seconds = time.perf_counter() - started
            runs[name].append({"seconds": seconds, "peak_disk_mb": watch.peak_bytes / 1e6})
        if scores["loso"] != scores["old way"]:
            sys.exit("the two ways do not agree on the scores")
        cells = len(scores["loso"])
    ways = {
        name: {key: statistics.median(run[key] for run in of) for key in of[0]}
        for name, of in runs.items()
    }
    ratios = {key: ways["old way"][key] / ways["loso"][key] for key in ways["loso"]}
    return {"cells": cells, "jobs": jobs, "ratios": ratios, "runs": runs, "ways": ways}


def main() -> None:
    """Measure, print, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description="A corpus built by loso and by the old way.")
    parser.add_argument("clips", nargs="*", type=Path, help="generated ones unless given")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--scale", default="640x360")
    parser.add_argument("--encoder", action="append", help="libx264 and libsvtav1 unless given")
    parser.add_argument("--quality", action="append", default=[])
    parser.add_argument("--preset", action="append", default=["libsvtav1=10"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    width, height = map(int, options.scale.split("x"))
    encoders = options.encoder or ["libx264", "libsvtav1"]
    settings = BuildSettings(
        choices=read_choices(
            encoders,
            quality=options.quality or ["25,35"],
            preset=[text for text in options.preset if text.split("=")[0] in encoders],
        ),
        clips=ClipSettings(frames=options.frames, scale=(width, height)),
    )
    with tempfile.TemporaryDirectory() as folder:
        clips = options.clips or generate(find_ffmpeg(), Path(folder), options.frames)
        result = measure(clips, settings, jobs=options.jobs, repeats=options.repeats)
    print(f"{result['cells']} cells, {options.jobs} at a time, median of {options.repeats}")
    print(f"{'':10}{'seconds':>10}{'peak disk':>14}")
    for name, of in result["ways"].items():
        print(f"{name:10}{of['seconds']:10.2f}{of['peak_disk_mb']:11.2f} MB")
    ratios = result["ratios"]
    print(f"{'old/loso':10}{ratios['seconds']:10.2f}{ratios['peak_disk_mb']:14.0f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
