"""Training many small networks at once: one plan in, weights and losses out, several engines."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from loso.engine.network import Network
from loso.engine.plan import Member, Trained, TrainingPlan
from loso.errors import BadSettings, MissingExtra, MissingTool
from loso.progress import Progress, silent

__all__ = ["ENGINES", "Member", "Network", "Trained", "TrainingPlan", "choose", "train_members"]

ENGINES: Final = ("auto", "batched", "native", "reference")

_log = logging.getLogger(__name__)


def choose(engine: str, device: str) -> tuple[str, str]:
    """Return the engine and the device that `engine` and `device` stand for on this machine.

    `auto` takes CUDA where there is one, else `native`, else `batched`, which it says in one line
    of the log. BadSettings for a name that does not exist or a device that the engine does not
    use, MissingTool for a device, MissingExtra for an engine that is not there.
    """
    if engine not in ENGINES:
        raise BadSettings("no such engine", expected=" or ".join(ENGINES), found=engine)
    if device not in {"auto", "cpu", "cuda"}:
        raise BadSettings("no such device", expected="auto, cpu or cuda", found=device)
    if engine == "native" and device == "cuda":
        raise BadSettings("the native engine runs on the CPU", fix="use --engine batched")
    if device == "auto":
        may = engine in {"auto", "batched"} and _has_nvidia_driver()
        device = "cuda" if may and _has_cuda() else "cpu"
    if engine == "auto":
        engine = "native" if device == "cpu" and _has_kernel() else "batched"
        if device == "cpu" and engine == "batched":
            _log.warning("loso was installed without its compiled kernel: training with torch")
    if engine == "native" and not _has_kernel():
        raise MissingExtra(
            "loso was installed without its compiled kernel",
            fix="reinstall it where there is a C++20 compiler, or use --engine batched",
        )
    if engine != "native" and find_spec("torch") is None:
        raise MissingExtra(f"the {engine} engine needs torch", fix="pip install 'loso[torch]'")
    if device == "cuda" and not _has_cuda():
        raise MissingTool("no CUDA device is visible to torch", fix="use --device cpu")
    return engine, device


def _has_kernel() -> bool:
    return find_spec("loso.engine._kernel") is not None


def _has_nvidia_driver() -> bool:
    """Return whether it is worth importing torch, which takes seconds, to look for CUDA."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _has_cuda() -> bool:
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def train_members(
    plan: TrainingPlan,
    *,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    progress: Progress = silent,
) -> Trained:
    """Return every member of `plan`, trained.

    `threads` is by default one for each core with `native`, and one with torch: more help it
    little here and cost a lot on a machine that has other work, as the layers are too small to
    share. Diverged where a member leaves the finite numbers.
    """
    name, device = choose(engine, device)
    train = import_module(f"loso.engine.{name}").train
    trained: Trained
    if name == "native":
        trained = train(plan, threads=threads or os.cpu_count() or 1, progress=progress)
    else:
        with _torch_threads(threads or 1):
            trained = train(plan, device=device, progress=progress)
    trained.require_finite(plan)
    return trained.in_target_units(plan)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
