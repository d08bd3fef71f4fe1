"""Training many small networks at once: one plan in, weights and losses out, several engines."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Final

from loso.engine.network import Network
from loso.engine.plan import Member, Trained, TrainingPlan
from loso.errors import BadSettings, MissingExtra, MissingTool
from loso.progress import Progress, silent

__all__ = ["ENGINES", "Member", "Network", "Trained", "TrainingPlan", "choose", "train_members"]

ENGINES: Final = ("auto", "batched", "reference")


def choose(engine: str, device: str) -> tuple[str, str]:
    """Return the engine and the device that `engine` and `device` stand for on this machine.

    `auto` takes CUDA where there is one. BadSettings for a name that does not exist, MissingExtra
    without torch.
    """
    if engine not in ENGINES:
        raise BadSettings("no such engine", expected=" or ".join(ENGINES), found=engine)
    if find_spec("torch") is None:
        raise MissingExtra("training needs torch", fix="pip install 'loso[torch]'")
    if device == "auto":
        device = "cuda" if engine != "reference" and _has_cuda() else "cpu"
    elif device not in {"cpu", "cuda"}:
        raise BadSettings("no such device", expected="auto, cpu or cuda", found=device)
    elif device == "cuda" and not _has_cuda():
        raise MissingTool("no CUDA device is visible to torch", fix="use --device cpu")
    return ("batched" if engine == "auto" else engine), device


def _has_cuda() -> bool:
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
    """Return every member of `plan`, trained; `threads` is by default one.

    More threads help torch little here and cost a lot on a machine that has other work: the layers
    are too small to share. Diverged where a member leaves the finite numbers.
    """
    import torch

    name, device = choose(engine, device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or 1)
    try:
        trained: Trained = import_module(f"loso.engine.{name}").train(
            plan, device=device, progress=progress
        )
    finally:
        torch.set_num_threads(before)
    trained.require_finite(plan)
    return trained
