"""Clips in, a corpus out: every cell measured once, in parallel, resumable at any moment."""

from __future__ import annotations

import gzip
import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from loso import __version__
from loso.corpus.parts import Parts
from loso.corpus.plan import BuildSettings, Cell, fingerprint, plan_cells, portable, rows_of
from loso.errors import BadSettings, CannotRun
from loso.files import sha256_of, write_atomic, write_json
from loso.progress import Progress, silent
from loso.video.clips import Clip, open_clip
from loso.video.ffmpeg import Ffmpeg, FfmpegSession
from loso.video.measure import (
    Encode,
    Measurement,
    commands,
    measure,
    probe_libvmaf,
    try_encoder,
)

__all__ = ["BuildReport", "build_corpus", "manifest_path"]

MANIFEST_SCHEMA_VERSION: Final = 1
ATTEMPTS: Final = 2
"""A failed cell is tried once more: drivers and memory have bad moments."""
TRIAL_SIZE: Final = (320, 240)
"""Of the frames an encoder is tried on: above every hardware encoder's least size."""

VMAF_SIZE: Final = (1920, 1080)

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build left behind."""

    corpus: Path
    manifest: Path
    rows: int
    cells: int
    reused: int
    """Cells that an earlier call had measured."""
    missing: Mapping[str, str]
    """The name of each cell that failed, and why. The corpus holds the others."""


def manifest_path(out: Path) -> Path:
    """Return where the manifest of corpus `out` stands.

    >>> manifest_path(Path("runs/corpus.jsonl.gz")).name
    'corpus.manifest.json'
    """
    return out.with_name(out.name.removesuffix(".gz").removesuffix(".jsonl") + ".manifest.json")


def build_corpus(
    clips: Sequence[Path],
    settings: BuildSettings,
    ffmpeg: Ffmpeg,
    *,
    out: Path,
    parts: Path | None = None,
    jobs: int = 1,
    two_step: bool | None = None,
    command: Sequence[str] = (),
    progress: Progress = silent,
    say: Say = lambda _: None,
) -> BuildReport:
    """Measure every cell that `parts` lacks, write corpus `out` and its manifest, and report.

    The corpus's bytes do not depend on `jobs`, on the order of clips and settings, or on what was
    measured before. `two_step` is meant for ffmpeg before 7.0; left out, the version decides.
    `say` receives each line for the user. BadInput and CannotRun come before anything is written.
    """
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise BadSettings(
            "a corpus is written as JSONL",
            where="--out",
            expected="a name that ends in .jsonl or .jsonl.gz",
            found=out.name,
        )
    if jobs < 1:
        raise BadSettings("--jobs must be at least 1", found=f"{jobs}")
    if not clips:
        raise BadSettings("no clips", fix="name at least one")
    started = time.monotonic()
    two_step = not ffmpeg.has_loopback if two_step is None else two_step
    store = Parts(parts or out.with_name(f"{out.name}.parts"))
    with FfmpegSession(ffmpeg) as session:
        libvmaf = _try_all(settings, session)
        with _pool(session, jobs) as pool:
            opened = list(pool.map(lambda path: _open(path, settings, session), clips))
        cells = plan_cells(opened, settings)
        marks = {
            cell.name: fingerprint(cell, settings.model, ffmpeg, libvmaf, two_step=two_step)
            for cell in cells
        }
        warnings = _warnings(opened, settings)
        for warning in warnings:
            say(f"warning: {warning}")
        with store.hold():
            waiting = [cell for cell in cells if store.load(marks[cell.name]) is None]
            if len(waiting) < len(cells):
                say(f"{len(cells) - len(waiting)} of {len(cells)} cells are there already")

            def work(cell: Cell) -> None:
                store.save(
                    marks[cell.name], _measure(cell, settings, session, store, two_step=two_step)
                )

            with _pool(session, jobs) as pool:
                missing = _follow({pool.submit(work, cell): cell for cell in waiting}, progress)
            finished = [cell for cell in cells if cell.name not in missing]
            rows, seconds = _write_corpus(out, finished, marks, store)
    manifest = {
        "cells": [
            _cell_record(cell, settings, marks[cell.name], seconds[cell.name], two_step=two_step)
            for cell in finished
        ],
        "clips": {clip.src: _clip_record(clip, settings) for clip in opened},
        "command": shlex.join(command),
        "corpus": {"file": out.name, "rows": rows, "sha256": sha256_of(out) if rows else None},
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "elapsed_s": round(time.monotonic() - started, 3),
        "ffmpeg": {"configuration": ffmpeg.configuration, "version": ffmpeg.version},
        "libvmaf": {"model": _model_record(settings), "version": libvmaf},
        "loso_version": __version__,
        "machine": {
            "architecture": platform.machine(),
            "cpus": os.cpu_count(),
            "system": platform.system(),
        },
        "missing": missing,
        "run": {
            "jobs": jobs,
            "reused_cells": len(cells) - len(waiting),
            "threads": settings.threads,
            "timeout_s": settings.timeout_s,
            "two_step": two_step,
        },
        "schema_version": MANIFEST_SCHEMA_VERSION,
        "warnings": warnings,
    }
    write_json(manifest_path(out), manifest)
    return BuildReport(
        corpus=out,
        manifest=manifest_path(out),
        rows=rows,
        cells=len(cells),
        reused=len(cells) - len(waiting),
        missing=missing,
    )


@contextmanager
def _pool(session: FfmpegSession, jobs: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads; an error or Ctrl-C in the block ends what they wait for."""
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    except BaseException:
        session.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _try_all(settings: BuildSettings, session: FfmpegSession) -> str:
    """Return libvmaf's version, after the model and each encoder did a little work."""
    with TemporaryDirectory(prefix="loso-") as name:
        folder = Path(name)
        limit_s = settings.timeout_s
        libvmaf = probe_libvmaf(settings.model, session, folder=folder, timeout_s=limit_s)
        # The rate is tried too, but one of each kind will do.
        trials = {
            (choice.encoder.name, choice.preset, choice.rate.control): choice
            for choice in settings.choices
        }
        for choice in trials.values():
            width, height = TRIAL_SIZE
            encode = Encode(
                encoder=choice.encoder,
                preset=choice.preset,
                rate=choice.rate,
                width=width,
                height=height,
                threads=settings.threads,
                extra=choice.extra,
                device=settings.device(choice.encoder),
            )
            try_encoder(encode, session, folder=folder, timeout_s=limit_s)
    return libvmaf


def _open(path: Path, settings: BuildSettings, session: FfmpegSession) -> Clip:
    return open_clip(path, settings.clips, session, timeout_s=settings.timeout_s)


def _warnings(clips: Sequence[Clip], settings: BuildSettings) -> list[str]:
    """Return what a user should know before trusting the numbers."""
    warnings = [f"{clip.src}: {remark}" for clip in clips for remark in clip.remarks]
    sizes = sorted({(clip.width, clip.height) for clip in clips} - {VMAF_SIZE})
    if settings.model.version.startswith("vmaf_v0.6.1") and sizes:
        listed = ", ".join(f"{width}x{height}" for width, height in sizes)
        warnings.append(
            f"VMAF v0.6.1 assumes 1920x1080 seen from three heights away; scored here: {listed}"
        )
    if len({choice.rate.control for choice in settings.choices}) > 1:
        warnings.append(
            "quality and bitrate cells in one corpus: cq, and crf_norm with it, spans two scales"
        )
    return warnings


def _measure(
    cell: Cell, settings: BuildSettings, session: FfmpegSession, store: Parts, *, two_step: bool
) -> Measurement:
    """Return a cell's measurement, trying again after a failure."""
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            with store.work_folder() as folder:
                return measure(
                    cell.clip,
                    cell.encode,
                    settings.model,
                    session,
                    folder=folder,
                    timeout_s=settings.timeout_s,
                    two_step=two_step,
                )
        except CannotRun:
            if not attempts_left:
                raise
    raise AssertionError


def _follow(futures: Mapping[Future[None], Cell], progress: Progress) -> dict[str, str]:
    """Return the cells that failed, with reasons, while telling how the work goes."""
    failed: dict[str, str] = {}
    started = time.monotonic()
    for done, future in enumerate(as_completed(futures), start=1):
        try:
            future.result()
        except CannotRun as failure:
            failed[futures[future].name] = failure.problem
        rate = done / (time.monotonic() - started)
        progress(done, len(futures), f"{done} done, {len(failed)} failed, {rate:.2f} cells/s")
    return dict(sorted(failed.items()))


def _write_corpus(
    out: Path, cells: Sequence[Cell], marks: Mapping[str, str], store: Parts
) -> tuple[int, dict[str, float]]:
    """Write the rows of finished cells; return how many, and the seconds each cell took."""
    seconds: dict[str, float] = {}
    rows = 0
    if not cells:
        return rows, seconds
    with write_atomic(out) as temporary, temporary.open("wb") as raw:
        # No name and no time in the gzip header: equal rows give equal bytes.
        packed = out.name.endswith(".gz")
        stream = gzip.GzipFile("", "wb", 9, raw, mtime=0) if packed else raw
        for cell in cells:
            measured = store.load(marks[cell.name])
            if measured is None:
                raise CannotRun(
                    "a finished cell vanished", where=str(store.folder), found=cell.name
                )
            for row in rows_of(cell, measured):
                stream.write(json.dumps(row).encode() + b"\n")
                rows += 1
            seconds[cell.name] = round(measured.seconds, 3)
        if packed:
            stream.close()
    return rows, seconds


def _cell_record(
    cell: Cell, settings: BuildSettings, mark: str, seconds: float, *, two_step: bool
) -> dict[str, Any]:
    lines = commands(cell.clip, cell.encode, settings.model, two_step=two_step)
    return {
        "clip": cell.name,
        "commands": [
            shlex.join(["ffmpeg", *line])
            for line in portable(lines, cell.clip, cell.clip.path.name)
        ],
        "fingerprint": mark,
        "seconds": seconds,
        "src": cell.clip.src,
    }


def _clip_record(clip: Clip, settings: BuildSettings) -> dict[str, Any]:
    return {
        "decoded": clip.decoded,
        "file": clip.path.name,
        "file_bytes": clip.path.stat().st_size,
        "fps": str(clip.fps),
        "frames": clip.frames,
        "height": clip.height,
        "pixel_format": clip.pixel_format,
        "remarks": list(clip.remarks),
        "sha256": clip.sha256,
        "start_s": settings.clips.start_s,
        "width": clip.width,
    }


def _model_record(settings: BuildSettings) -> dict[str, str]:
    model = settings.model
    if model.path is None:
        return {"version": model.version}
    return {"file": model.path.name, "sha256": sha256_of(model.path)}
