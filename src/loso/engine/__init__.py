"""Training many small networks at once: one plan in, weights and losses out, several engines."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from loso.engine.network import Network
from loso.engine.plan import Member, Trained, TrainingPlan
from loso.engine.shards import train as train_on
from loso.errors import BadSettings, MissingExtra, MissingTool
from loso.executors import Cluster
from loso.machine import cores
from loso.progress import Progress, silent
from loso.spelling import did_you_mean

__all__ = [
    "DEVICES",
    "ENGINES",
    "Member",
    "Network",
    "Trained",
    "TrainingPlan",
    "choose",
    "cuda_name",
    "reason",
    "train_members",
]

ENGINES: Final = ("auto", "batched", "native", "reference")
DEVICES: Final = ("auto", "cpu", "cuda")

_log = logging.getLogger(__name__)


def choose(engine: str, device: str) -> tuple[str, str]:
    """Return the engine and the device that `engine` and `device` stand for on this machine.

    `auto` takes CUDA where there is one, else `native`, else `batched`, which it says in one line
    of the log. BadSettings for a name that does not exist or a device that the engine does not
    use, MissingTool for a device, MissingExtra for an engine that is not there.
    """
    if engine not in ENGINES:
        expected, fix = " or ".join(ENGINES), did_you_mean(engine, ENGINES)
        raise BadSettings("no such engine", expected=expected, found=engine, fix=fix)
    if device not in DEVICES:
        fix = did_you_mean(device, DEVICES)
        raise BadSettings("no such device", expected="auto, cpu or cuda", found=device, fix=fix)
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


def reason(engine: str, device: str) -> str:
    """Return why `choose` takes this engine and device for `auto` here, in words."""
    if device == "cuda":
        return "torch sees a CUDA device"
    if not _has_nvidia_driver():
        no_cuda = "no NVIDIA driver"
    elif find_spec("torch") is None:
        no_cuda = "an NVIDIA driver, but no torch to train with"
    else:
        no_cuda = "an NVIDIA driver, but this torch sees no CUDA device"
    kernel = "the compiled kernel is there" if engine == "native" else "no compiled kernel"
    return f"{no_cuda}; {kernel}"


def cuda_name() -> str:
    """Return the name of the device that torch trains on, where `choose` has taken cuda."""
    import torch

    return torch.cuda.get_device_name()


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
    keep_diverged: bool = False,
    cluster: Cluster | None = None,
    progress: Progress = silent,
) -> Trained:
    """Return every member of `plan`, trained.

    `threads` is by default one for each core of this process with `native`, and one with torch:
    more help it little here and cost a lot on a machine that has other work, as the layers are too
    small to share. The workers of a `cluster` train with `native`, on one thread a task by default.
    Diverged where a member leaves the finite numbers; with `keep_diverged` it is for
    `Trained.failures` to tell.
    """
    name, device = choose(engine, device)
    train = import_module(f"loso.engine.{name}").train
    trained: Trained
    if cluster is not None:
        trained = train_on(plan, cluster=cluster, threads=threads or 1, progress=progress)
    elif name == "native":
        trained = train(plan, threads=threads or cores().usable, progress=progress)
    else:
        with _torch_threads(threads or 1):
            trained = train(plan, device=device, progress=progress)
    if not keep_diverged:
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
