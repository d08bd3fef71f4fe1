"""The command `doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from loso.cli.console import (
    Coloured,
    answer,
    print_json,
    print_line,
    print_table,
    show_progress,
)
from loso.cli.options import JsonOption
from loso.corpus.plan import BuildSettings
from loso.schema import ENCODER_VOCAB

if TYPE_CHECKING:
    from loso.doctor import Checkup
    from loso.machine import Cores, Memory
    from loso.video.trial import EncoderTrial

__all__ = ["doctor"]

_WIDTH: Final = len("hevc_videotoolbox")
"""Of the first column, so that the groups stand in line."""

_Rows = list[tuple[str, ...]]


def doctor(
    ffmpeg: Annotated[
        str, typer.Option(metavar="PATH", help="The ffmpeg to examine, with libvmaf.")
    ] = "",
    qsv_device: Annotated[
        str, typer.Option(help="Render node for Quick Sync.")
    ] = BuildSettings.qsv_device,
    vaapi_device: Annotated[
        str, typer.Option(help="Render node for VA-API.")
    ] = BuildSettings.vaapi_device,
    as_json: JsonOption = False,
) -> None:
    """Say what works on this machine: ffmpeg, every encoder, the training engine, GPUs.

    All of it is tried: each encoder codes three small frames, libvmaf scores one, the engine trains
    a small network, a graph is run. Exit 0 where a corpus can be built, trained on and predicted
    from, 3 where one of these cannot be done here; the last line says which, and what to do.

    Example: loso doctor
    """
    from loso.doctor import examine

    with show_progress("doctor") as progress:
        found = examine(ffmpeg, qsv_device=qsv_device, vaapi_device=vaapi_device, progress=progress)
    if as_json:
        print_json(found.to_dict())
    else:
        for title, rows in _groups(found):
            print_line(Coloured(title, "bold"))
            print_table((), [(row[0].ljust(_WIDTH), *row[1:]) for row in rows])
            print_line("")
        for note in found.notes:
            print_line(f"note: {note}")
        print_line(answer(found.answer, good=found.ready))
    if not found.ready:
        raise typer.Exit(3)


def _groups(found: Checkup) -> Iterator[tuple[str, _Rows]]:
    """Yield what was found, a title and rows at a time."""
    yield (
        f"loso {found.loso}",
        [
            ("Python", found.python),
            ("platform", found.platform),
            ("cores", _cores(found.cores)),
            ("memory", _memory(found.memory)),
        ],
    )
    yield "Training", _training(found)
    yield "ffmpeg", _ffmpeg(found)
    yield from _encoders(found)
    yield "GPUs", _gpus(found)
    yield (
        "Optional packages",
        [(e.package, e.version or e.install, e.purpose) for e in found.extras],
    )


def _cores(found: Cores) -> str:
    limit = "" if found.limit is None else f", the control group allows {found.limit:g}"
    return f"{found.usable} of {found.present}{limit}"


def _memory(found: Memory) -> str:
    total, free, limit = (
        f"{size / 1e9:.1f} GB" if size is not None else ""
        for size in (found.total_bytes, found.available_bytes, found.limit_bytes)
    )
    parts = (total, free and f"{free} available", limit and f"the control group allows {limit}")
    return ", ".join(filter(None, parts)) or "unknown"


def _training(found: Checkup) -> _Rows:
    trial = found.engine
    engine = f"{trial.engine} on {trial.device}: {trial.reason}" if trial.engine else "none"
    others = " ".join(name for name in trial.instruction_sets if name != trial.instruction_set)
    kernel = trial.instruction_set or "none"
    torch = next(extra.version for extra in found.extras if extra.package == "torch")
    return [
        ("engine", engine),
        ("training", _works(trial.problem)),
        ("compiled kernel", f"{kernel} (also runs {others})" if others else kernel),
        ("torch", torch or "none"),
        ("CUDA device", trial.cuda_device or "none"),
    ]


def _works(problem: str) -> str:
    return answer(f"fails: {problem}" if problem else "works", good=not problem)


def _ffmpeg(found: Checkup) -> _Rows:
    trial = found.ffmpeg
    if trial.path is None:
        return [("path", "none"), ("problem", answer(trial.problem, good=False))]
    loopback = "yes, a cell is one process" if trial.has_loopback else "no, a cell takes two steps"
    return [
        ("path", trial.path),
        ("from", trial.origin or ""),
        ("version", trial.version or ""),
        ("loopback decoder", loopback),
        ("libvmaf", trial.libvmaf or "none"),
        (trial.vmaf_model, _works(trial.problem)),
    ]


def _encoders(found: Checkup) -> Iterator[tuple[str, _Rows]]:
    for title, inside in (
        ("Encoders of the vocabulary", True),
        ("Encoders that share the slot `unknown`", False),
    ):
        rows: _Rows = [
            (trial.encoder, _state(trial), trial.reason.removeprefix(f"[{trial.encoder}] "))
            for trial in found.encoders
            if (trial.encoder in ENCODER_VOCAB) == inside
        ]
        yield title, rows or [("not tried", "there is no ffmpeg to try them with")]


def _state(trial: EncoderTrial) -> str:
    colours = {"works": "green", "fails": "yellow"}
    return Coloured(trial.state, colours.get(trial.state, ""))


def _gpus(found: Checkup) -> _Rows:
    gpus = found.gpus
    rows: _Rows = [("NVIDIA", f"none: {gpus.nvidia_problem}")] if gpus.nvidia_problem else []
    for gpu in gpus.nvidia:
        size = "shared memory" if gpu.memory_mib is None else f"{gpu.memory_mib} MiB"
        rows.append(("NVIDIA", f"{gpu.name}, {size}, driver {gpu.driver}"))
    if not gpus.render_nodes:
        rows.append(("render node", "none in /dev/dri: no Quick Sync, no VA-API"))
    for node in gpus.render_nodes:
        shut = "" if node.may_open else ", which this user may not open"
        rows.append(("render node", f"{node.path}, driver {node.driver or 'unknown'}{shut}"))
    return rows
