"""Graphics hardware that could encode: NVIDIA's as its driver lists it, and render nodes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loso.errors import MissingTool
from loso.video.ffmpeg import ask

__all__ = ["NvidiaGpu", "RenderNode", "nvidia_gpus", "render_nodes"]

_QUESTION: Final = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
_TIMEOUT_S: Final = 30.0
"""Without a daemon that keeps the driver awake, eight GPUs take some ten seconds to answer."""


@dataclass(frozen=True)
class NvidiaGpu:
    """One GPU; its memory is None where it shares the machine's."""

    name: str
    memory_mib: int | None
    driver: str


@dataclass(frozen=True)
class RenderNode:
    """A device of Quick Sync or VA-API, its kernel driver, and whether this user may open it."""

    path: str
    driver: str
    may_open: bool


def nvidia_gpus() -> tuple[NvidiaGpu, ...]:
    """Return the GPUs that nvidia-smi lists; MissingTool says why it lists none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        raise MissingTool("nvidia-smi is not there")
    try:
        answer = ask(program, *_QUESTION, timeout_s=_TIMEOUT_S)
    except MissingTool as failure:
        raise MissingTool(f"nvidia-smi {failure}") from None
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    gpus = tuple(
        NvidiaGpu(name, int(mib) if mib.isdigit() else None, driver)
        for name, mib, driver in (row for row in rows if len(row) == 3)
    )
    if not gpus:
        said = answer.strip().partition("\n")[0] or "it printed nothing"
        raise MissingTool(f"nvidia-smi lists no GPU ({said})")
    return gpus


def render_nodes(root: Path = Path("/")) -> tuple[RenderNode, ...]:
    """Return the render nodes of this machine, sorted by path."""
    return tuple(
        RenderNode(
            path=f"/{path.relative_to(root)}",
            driver=_kernel_driver(root, path.name),
            may_open=os.access(path, os.R_OK | os.W_OK),
        )
        for path in sorted((root / "dev/dri").glob("renderD*"))
    )


def _kernel_driver(root: Path, node: str) -> str:
    """Return the name of a node's driver, such as i915, or nothing where the kernel hides it."""
    link = root / "sys/class/drm" / node / "device/driver"
    return link.resolve().name if link.exists() else ""
