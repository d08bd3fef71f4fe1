"""The training engine of this machine: which one, why, and whether it trains a small network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from loso.engine import Member, TrainingPlan, choose, cuda_name, reason, train_members
from loso.errors import BadSettings, LosoError
from loso.recipe import Recipe

__all__ = ["EngineTrial", "try_engines"]

_FALLBACKS: Final = (("native", "cpu"), ("batched", "cpu"))


@dataclass(frozen=True, kw_only=True)
class EngineTrial:
    """What `--engine auto` comes to here; `problem` says why it does not train, or is empty.

    `instead` holds options with which training works where it does not without.
    """

    engine: str = ""
    device: str = ""
    reason: str = ""
    problem: str = ""
    fix: str = ""
    instead: str = ""
    instruction_set: str = ""
    instruction_sets: tuple[str, ...] = ()
    """Those of the compiled kernel that this processor runs, the best first."""
    cuda_device: str | None = None

    @property
    def trains(self) -> bool:
        """Whether training works here, with options or without."""
        return not self.problem or bool(self.instead)


def try_engines() -> EngineTrial:
    """Return the engine of `auto` after it trained a small network, or what does in its place."""
    chosen, here = _instruction_sets()
    known = EngineTrial(instruction_set=chosen, instruction_sets=here)
    try:
        engine, device = choose("auto", "auto")
        known = replace(known, engine=engine, device=device, reason=reason(engine, device))
        if device == "cuda":
            known = replace(known, cuda_device=cuda_name())
        _train(engine, device)
    except _FAILURES as failure:
        problem, fix = _said(failure)
        return replace(known, problem=problem, fix=fix, instead=_instead(known))
    return known


_FAILURES: Final = (LosoError, ImportError, OSError, RuntimeError)
"""What a refusal is, a library that cannot be loaded, and torch's own errors."""


def _train(engine: str, device: str) -> None:
    """Train one network of two inputs for an epoch."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(16, 2)).astype(np.float32)
    rows = np.arange(len(inputs), dtype=np.int32)
    member = Member(0, 0, "none", rows, mean=np.zeros(2), std=np.ones(2))
    plan = TrainingPlan(inputs, inputs[:, 0].copy(), (member,), Recipe(epochs=1, hidden=8))
    train_members(plan, engine=engine, device=device, threads=1)


def _instead(known: EngineTrial) -> str:
    for engine, device in _FALLBACKS:
        if (engine, device) != (known.engine, known.device):
            try:
                _train(engine, device)
            except _FAILURES:
                continue
            return f"--engine {engine} --device {device}"
    return ""


def _instruction_sets() -> tuple[str, tuple[str, ...]]:
    """Return the compiled kernel's in use, and all that run here; none without a kernel."""
    try:
        from loso.engine.native import instruction_set, instruction_sets
    except ImportError:
        return "", ()
    here = tuple(instruction_sets())
    try:
        return instruction_set(), here
    except BadSettings:
        return "", here


def _said(failure: Exception) -> tuple[str, str]:
    """Return what went wrong in one line, and what to do about it if that is known."""
    fix = failure.fix if isinstance(failure, LosoError) else ""
    lines = str(failure).strip().splitlines()
    return (lines[0] if lines else type(failure).__name__).removesuffix(f"; {fix}"), fix
