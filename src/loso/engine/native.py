"""Members trained by compiled code on the processor's vector units, a thread for each member."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from loso.engine._kernel import Recipe as KernelRecipe
from loso.engine._kernel import instruction_sets
from loso.engine._kernel import train as train_in_kernel
from loso.engine.counter import keep_threshold
from loso.engine.network import Network, first_network, layer_shapes
from loso.engine.plan import Trained, TrainingPlan
from loso.errors import BadSettings
from loso.progress import Progress
from loso.recipe import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, Recipe

__all__ = ["instruction_set", "instruction_sets", "train"]


def instruction_set() -> str:
    """Return the instruction set in use: the best that runs here, or what LOSO_ISA names.

    BadSettings where this machine does not run that one.
    """
    here = instruction_sets()
    wanted = os.environ.get("LOSO_ISA", here[0])
    if wanted not in here:
        raise BadSettings(
            "this machine does not run that instruction set",
            where="LOSO_ISA",
            expected=" or ".join(here),
            found=wanted,
        )
    return wanted


def train(plan: TrainingPlan, *, threads: int, progress: Progress) -> Trained:
    """Return every member of `plan`, trained on the CPU, `threads` members at a time.

    The bytes do not depend on `threads` nor on the order of members. The losses of a member that
    leaves the finite numbers are NaN from that epoch on; the others are trained to their end.
    """
    dtype, members = plan.inputs.dtype, plan.members
    count, width = len(members), plan.inputs.shape[1]
    parameters = np.stack(
        [_flat(first_network(width, plan.recipe, seed=m.seed, fold=m.fold)) for m in members]
    ).astype(dtype)
    losses = np.full((count, plan.recipe.epochs), np.nan)
    total = sum(plan.steps(member) for member in members)

    def report(steps: int, latest: int) -> None:
        member, epoch = divmod(latest, plan.recipe.epochs)
        m = members[member]
        note = f"seed {m.seed}, held out {m.held_out}, epoch {epoch + 1}" if latest >= 0 else ""
        progress(steps, total, note)

    train_in_kernel(
        isa=instruction_set(),
        recipe=_kernel_recipe(plan.recipe, width),
        inputs=np.ascontiguousarray(plan.inputs),
        target=np.ascontiguousarray(plan.target, dtype),
        train_rows=[np.ascontiguousarray(m.train, np.int32) for m in members],
        mean=np.stack([m.mean for m in members]).astype(dtype),
        std=np.stack([m.std for m in members]).astype(dtype),
        target_scale=np.array([(m.target_mean, m.target_std) for m in members], dtype),
        address=np.array([(m.seed, m.fold) for m in members], np.int64),
        parameters=parameters,
        losses=losses,
        threads=threads,
        progress=report,
    )
    return Trained(tuple(_network(p, width, plan.recipe) for p in parameters), losses)


def _kernel_recipe(recipe: Recipe, inputs: int) -> KernelRecipe:
    return KernelRecipe(
        inputs=inputs,
        hidden=recipe.hidden,
        depth=recipe.depth,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        beta1=ADAM_BETA1,
        beta2=ADAM_BETA2,
        epsilon=ADAM_EPSILON,
        dropout=recipe.dropout,
        keep_threshold=keep_threshold(recipe.dropout),
    )


def _flat(network: Network) -> NDArray[np.floating]:
    """Return all parameters in a row: of each layer its weights, then its biases."""
    return np.concatenate(
        [a.ravel() for pair in zip(network.weights, network.biases, strict=True) for a in pair]
    )


def _network(parameters: NDArray[np.floating], inputs: int, recipe: Recipe) -> Network:
    weights, biases, start = [], [], 0
    for out, into in layer_shapes(inputs, recipe):
        stop = start + out * into
        weights.append(parameters[start:stop].reshape(out, into))
        biases.append(parameters[stop : stop + out])
        start = stop + out
    return Network(tuple(weights), tuple(biases))
