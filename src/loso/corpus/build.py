"""Clips in, a corpus out: every cell measured once, in parallel, resumable at any moment."""

from __future__ import annotations

import gzip
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loso.corpus.manifest import describe, manifest_path
from loso.corpus.parts import Parts, folder_for
from loso.corpus.place import Place
from loso.corpus.plan import BuildSettings, Cell, Plan, rows_of
from loso.corpus.prepare import prepare
from loso.corpus.remote import place_of
from loso.errors import BadSettings, CannotRun, LostCluster
from loso.executors import Cluster
from loso.files import sha256_of, write_atomic, write_json
from loso.progress import Progress, silent
from loso.video.ffmpeg import Ffmpeg

__all__ = ["BuildReport", "build_corpus"]


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


def build_corpus(
    clips: Sequence[Path],
    settings: BuildSettings,
    ffmpeg: Ffmpeg,
    *,
    out: Path,
    parts: Path | None = None,
    jobs: int = 1,
    cluster: Cluster | None = None,
    two_step: bool | None = None,
    command: Sequence[str] = (),
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> BuildReport:
    """Measure every cell that `parts` lacks, write corpus `out` and its manifest, and report.

    With a `cluster` its workers do the work, those that see clips and parts and have this `ffmpeg`;
    LostCluster where none is left. The corpus's bytes do not depend on where cells are measured, on
    `jobs`, on the order of clips and settings, or on what was measured before. `two_step` is meant
    for ffmpeg before 7.0; left out, the version decides. `say` receives each line for the user,
    `command` goes into the manifest. Bad input and missing tools are refused before anything is
    written; where every cell fails, nothing is.
    """
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise BadSettings(
            "a corpus is written as JSONL",
            where="--out",
            expected="a name that ends in .jsonl or .jsonl.gz",
            found=out.name,
        )
    started = time.monotonic()
    steps = not ffmpeg.has_loopback if two_step is None else two_step
    store = Parts(parts or _parts_of(out))
    if out.is_dir():
        raise BadSettings("is a folder", where=f"--out {out}", expected="a file")
    somewhere = place_of(
        *(cluster, ffmpeg, settings, store),
        clips=clips,
        two_step=steps,
        jobs=jobs,
        progress=progress,
        say=say,
    )
    with _hold(out, store), somewhere as place:
        plan = prepare(clips, settings, ffmpeg, place, two_step=steps)
        for warning in plan.warnings:
            say(f"warning: {warning}")
        waiting = _waiting(plan, store)
        reused = sum(plan.marks[cell.name] not in waiting for cell in plan.cells)
        if reused:
            say(f"{reused} of {len(plan.cells)} cells are there already")
        failed = _measure_all(waiting, place, progress)
        missing = {
            cell.name: failed[plan.marks[cell.name]]
            for cell in plan.cells
            if plan.marks[cell.name] in failed
        }
        for name, reason in missing.items():
            say(f"failed: {name}: {reason}")
        finished = [cell for cell in plan.cells if cell.name not in missing]
        rows, seconds = _write_corpus(out, finished, plan.marks, store, place.patience_s)
        if rows:
            manifest = {
                **describe(plan, seconds=seconds, missing=missing),
                "command": shlex.join(command),
                "corpus": {"file": out.name, "rows": rows, "sha256": sha256_of(out)},
                "run": {
                    "elapsed_s": round(time.monotonic() - started, 3),
                    "jobs": place.size[1],
                    "reused_cells": reused,
                    "workers": place.size[0],
                },
            }
            write_json(manifest_path(out), manifest)
    return BuildReport(
        corpus=out,
        manifest=manifest_path(out),
        rows=rows,
        cells=len(plan.cells),
        reused=reused,
        missing=missing,
    )


def _parts_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


@contextmanager
def _hold(out: Path, store: Parts) -> Iterator[None]:
    """Keep other builds from the parts, and from the corpus, whatever parts they use.

    The lock of a corpus is that of the folder beside it, even where its parts lie elsewhere.
    """
    beside = Parts(_parts_of(out))
    with ExitStack() as held:
        held.enter_context(folder_for("the corpus", out.parent))
        held.enter_context(beside.hold())
        if store.folder.resolve() != beside.folder.resolve():
            held.enter_context(store.hold())
        yield


def _waiting(plan: Plan, store: Parts) -> dict[str, Cell]:
    """Return one cell for each fingerprint that has no whole part yet."""
    cells = {plan.marks[cell.name]: cell for cell in plan.cells}
    return {mark: cell for mark, cell in cells.items() if store.load(mark) is None}


def _measure_all(waiting: Mapping[str, Cell], place: Place, progress: Progress) -> dict[str, str]:
    """Measure and keep every waiting cell; return the fingerprints that failed, with reasons."""
    failed: dict[str, str] = {}
    started = time.monotonic()
    futures = {place.measure(mark, cell): mark for mark, cell in waiting.items()}
    done = 0
    for future in place.follow(futures.keys()):
        if future is not None:
            done += 1
            try:
                future.result()
            except LostCluster as lost:
                kept = f"{done - 1 - len(failed)} of {len(futures)} cells finished and kept"
                raise LostCluster(
                    lost.problem, where=lost.where, found=kept, fix=lost.fix
                ) from None
            except (CannotRun, OSError) as failure:
                failed[futures[future]] = str(failure)
        elif not place.remark:
            continue
        rate = done / (time.monotonic() - started)
        note = f"{done} of {len(futures)} cells, {len(failed)} failed, {rate:.2f} a second"
        progress(done, len(futures), ", ".join(filter(None, (note, place.remark))))
    return failed


def _write_corpus(
    out: Path,
    cells: Sequence[Cell],
    marks: Mapping[str, str],
    store: Parts,
    patience_s: float,
) -> tuple[int, dict[str, float]]:
    """Write the rows of finished cells; return how many, and the seconds that each cell took."""
    seconds: dict[str, float] = {}
    rows = 0
    if not cells:
        return rows, seconds
    with write_atomic(out) as temporary, temporary.open("wb") as raw:
        # No name and no time in gzip's header: equal rows give equal bytes.
        packed = gzip.GzipFile("", "wb", 9, raw, mtime=0) if out.suffix == ".gz" else None
        stream = packed or raw
        for cell in cells:
            measured = store.load(marks[cell.name], patience_s=patience_s)
            if measured is None:
                raise CannotRun(
                    "a finished cell vanished", where=str(store.folder), found=cell.name
                )
            for row in rows_of(cell, measured):
                stream.write(json.dumps(row).encode() + b"\n")
                rows += 1
            seconds[cell.name] = round(measured.seconds, 3)
        if packed:
            packed.close()
    return rows, seconds
