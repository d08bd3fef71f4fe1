"""Members trained on a cluster, some on each worker: the same weights as on this machine alone.

Bytes depend on the compiled kernel and on the instruction set that it takes. So each worker trains
a small network first, and takes part only if that gives the weights that it gives here.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass, replace

import numpy as np

from loso.engine.plan import Member, Trained, TrainingPlan
from loso.errors import BadSettings, CannotRun
from loso.executors import Cluster, Crew, UnfitWorker, ended, stopped_when_unwanted
from loso.progress import Progress, silent
from loso.recipe import Compute, Recipe

__all__ = ["ClusterCompute", "on_cluster", "train"]

_log = logging.getLogger(__name__)

_SHARDS_A_TASK: int = 4
"""Shards for each task that the workers take at a time: late workers find some left, and one that
dies costs little."""


@dataclass(frozen=True, kw_only=True)
class ClusterCompute(Compute):
    """The workers of a cluster as what trains, with the native engine; `threads` are of a task."""

    cluster: Cluster


def on_cluster(compute: Compute, cluster: Cluster) -> Compute:
    """Return what trains as `compute` says, on the workers of `cluster`.

    BadSettings for another engine than the native one: its bytes alone do not depend on which
    members are trained together.
    """
    if compute.engine not in {"auto", "native"} or compute.device == "cuda":
        asked = "--device cuda" if compute.device == "cuda" else f"--engine {compute.engine}"
        raise BadSettings("a cluster trains with the native engine", found=asked)
    return ClusterCompute(engine="native", device="cpu", threads=compute.threads, cluster=cluster)


@dataclass(frozen=True)
class _Kind:
    """What tells machines apart that train to other bytes."""

    instruction_set: str
    weights: str
    """Hash of a small network's after a few steps."""


def train(plan: TrainingPlan, *, cluster: Cluster, threads: int, progress: Progress) -> Trained:
    """Return every member of `plan`, trained by workers on `threads` threads a task.

    The raw matrix is sent to each worker once. CannotRun where no worker trains to the bytes of
    this machine; LostCluster where none is left.
    """
    width = plan.inputs.shape[1]
    with cluster.crew(_kind_here, plan.recipe, width, shared=replace(plan, members=())) as crew:
        mustered = crew.muster()
        for answered in ended([mustered]):
            _tell(crew)
            if answered is None:
                progress(0, 1, crew.remark)
        ours = _kind_here(plan.recipe, width)
        theirs = list(mustered.result().values())
        if ours not in theirs:
            raise CannotRun(
                "no worker trains to the bytes of this machine",
                expected=ours.instruction_set,
                found=", ".join(sorted({kind.instruction_set for kind in theirs})),
                fix="set LOSO_ISA here and for the workers to what all run, with one build of loso",
            )

        def judge(kind: _Kind) -> frozenset[str]:
            if kind != ours:
                raise UnfitWorker(
                    "trains to other bytes than this machine",
                    expected=ours.instruction_set,
                    found=kind.instruction_set,
                )
            return frozenset({""})

        crew.admit(judge)
        return _in_shards(plan, crew, threads, progress)


def _in_shards(plan: TrainingPlan, crew: Crew, threads: int, progress: Progress) -> Trained:
    members = plan.members
    size = max(threads, -(-len(members) // (_SHARDS_A_TASK * max(crew.most_tasks, 1))))
    shards = [members[start : start + size] for start in range(0, len(members), size)]
    futures = {crew.submit(_train_shard, shard, threads): shard for shard in shards}
    done, total = 0, sum(plan.steps(member) for member in members)
    for future in ended(futures.keys()):
        _tell(crew)
        if future is not None:
            future.result()
            done += sum(plan.steps(member) for member in futures[future])
        progress(done, total, crew.remark)
    parts = [future.result() for future in futures]
    return Trained(
        tuple(network for part in parts for network in part.networks),
        np.concatenate([part.losses for part in parts]),
    )


def _tell(crew: Crew) -> None:
    for line in crew.news():
        _log.warning("%s", line)


def _train_shard(shared: TrainingPlan, members: tuple[Member, ...], threads: int) -> Trained:
    """Return some members, trained on a worker until nobody waits for them."""
    from loso.engine.native import train as train_here

    unwanted = threading.Event()

    def go_on(done: float, total: float, note: str = "") -> None:  # noqa: ARG001 (Progress's own)
        if unwanted.is_set():
            raise CannotRun("training was stopped")

    with stopped_when_unwanted(unwanted.set):
        return train_here(replace(shared, members=members), threads=threads, progress=go_on)


def _kind_here(recipe: Recipe, width: int) -> _Kind:
    """Return what this machine makes of a small network of that recipe."""
    from loso.engine.native import instruction_set
    from loso.engine.native import train as train_here

    random = np.random.default_rng(0)
    rows = np.arange(2 * recipe.batch_size + 1, dtype=np.int32)
    inputs = random.normal(size=(len(rows), width)).astype(np.float32)
    member = Member(0, 0, "none", rows, mean=np.zeros(width), std=np.ones(width))
    plan = TrainingPlan(inputs, inputs[:, 0].copy(), (member,), replace(recipe, epochs=2))
    (network,) = train_here(plan, threads=1, progress=silent).networks
    weights = hashlib.sha256(b"".join(a.tobytes() for a in (*network.weights, *network.biases)))
    return _Kind(instruction_set(), weights.hexdigest())
