"""What every engine is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loso.engine.network import Network
from loso.errors import Diverged
from loso.recipe import Recipe

__all__ = ["Member", "Trained", "TrainingPlan"]


@dataclass(frozen=True)
class Member:
    """One network to train: its address in seeds and folds, its rows, and their scaling.

    `mean` and `std` (inputs,) were fitted on the rows `train` alone; members share those arrays
    where they share a fold. Likewise `target_mean` and `target_std`, by which the target is
    standardised while a member learns; 0 and 1 leave it as it is.
    """

    seed: int
    fold: int
    held_out: str
    train: NDArray[np.int32]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    target_mean: float = 0.0
    target_std: float = 1.0


@dataclass(frozen=True)
class TrainingPlan:
    """Raw inputs (rows, inputs) and target (rows,), shared by all members, and the recipe.

    Members standardise rows as they gather them, so memory grows with rows, not rows x members.
    Arithmetic is done in the dtype of `inputs`, float32 or float64.
    """

    inputs: NDArray[np.floating]
    target: NDArray[np.floating]
    members: tuple[Member, ...]
    recipe: Recipe

    def steps_an_epoch(self, member: Member) -> int:
        """Return how many optimiser steps a pass over the member's rows takes."""
        return -(-len(member.train) // self.recipe.batch_size)

    def steps(self, member: Member) -> int:
        """Return how many optimiser steps the member's whole training takes."""
        return self.recipe.epochs * self.steps_an_epoch(member)


@dataclass(frozen=True)
class Trained:
    """One trained network a member, and its loss (members, epochs).

    Engines return both in the unit that members learn in, `train_members` in the target's. The
    loss of an epoch is the mean over its rows of the squared error, each taken just before the
    step that used the row, with dropout at work.
    """

    networks: tuple[Network, ...]
    losses: NDArray[np.float64]

    def in_target_units(self, plan: TrainingPlan) -> Trained:
        """Return networks that give scores as the target has them, and losses in its unit squared.

        How a member's target was standardised goes into its network's last layer.
        """
        networks = [
            network.rescaled(member.target_mean, member.target_std)
            for member, network in zip(plan.members, self.networks, strict=True)
        ]
        std = np.array([member.target_std for member in plan.members])
        return Trained(tuple(networks), self.losses * std[:, None] ** 2)

    def failures(self, plan: TrainingPlan) -> tuple[Diverged | None, ...]:
        """Return the refusal of each member that left the finite numbers, None for the others."""
        found: list[Diverged | None] = []
        for member, losses, network in zip(plan.members, self.losses, self.networks, strict=True):
            lost = np.flatnonzero(~np.isfinite(losses))
            finite = all(np.isfinite(a).all() for a in (*network.weights, *network.biases))
            if finite and not len(lost):
                found.append(None)
                continue
            refusal = Diverged(
                "training diverged: the loss is not finite",
                where=f"seed {member.seed}, held out {member.held_out}",
                found=f"epoch {lost[0] if len(lost) else len(losses)}",
                fix="lower the learning rate, or look for extreme values in the corpus",
            )
            found.append(refusal)
        return tuple(found)

    def require_finite(self, plan: TrainingPlan) -> None:
        """Refuse members that left the finite numbers, naming the first (Diverged)."""
        for failure in self.failures(plan):
            if failure is not None:
                raise failure
