"""The plain PyTorch loop, one member after another: slow, and the oracle of the other engines."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loso.engine.counter import Purpose, fold_in, member_key, shuffled
from loso.engine.network import Network, first_network
from loso.engine.plan import Member, Trained, TrainingPlan
from loso.progress import Progress
from loso.recipe import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, Recipe

__all__ = ["train"]


def train(plan: TrainingPlan, *, device: str, progress: Progress) -> Trained:
    """Return every member of `plan`, trained one by one with torch.nn and torch.optim."""
    networks, losses = [], []
    total = sum(plan.steps(member) for member in plan.members)
    done = 0
    for member in plan.members:
        model, loss = _train_one(plan, member, torch.device(device))
        networks.append(_to_network(model))
        losses.append(loss)
        done += plan.steps(member)
        progress(done, total, f"seed {member.seed}, held out {member.held_out}")
    return Trained(tuple(networks), np.stack(losses))


def _train_one(
    plan: TrainingPlan, member: Member, device: torch.device
) -> tuple[torch.nn.Sequential, NDArray[np.float64]]:
    recipe = plan.recipe
    rows = (plan.inputs[member.train] - member.mean) / member.std
    inputs = torch.from_numpy(rows.astype(plan.inputs.dtype)).to(device)
    score = (plan.target[member.train] - member.target_mean) / member.target_std
    target = torch.from_numpy(score.astype(plan.inputs.dtype)).to(device)
    model = _model(plan, member).to(device)
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=recipe.lr,
        betas=(ADAM_BETA1, ADAM_BETA2),
        eps=ADAM_EPSILON,
        weight_decay=recipe.weight_decay,
    )
    mean_squared_error = torch.nn.MSELoss()
    order_key = member_key(member.seed, member.fold, Purpose.ORDER)
    (dropout_key,) = member_key(member.seed, member.fold, Purpose.DROPOUT)
    count = len(member.train)
    losses = np.zeros(recipe.epochs)
    with torch.random.fork_rng():
        torch.manual_seed(int(dropout_key) >> 1)
        model.train()
        for epoch in range(recipe.epochs):
            places = shuffled(fold_in(order_key, epoch), np.array([count]), np.arange(count))
            for batch in torch.from_numpy(places).to(device).split(recipe.batch_size):
                optimizer.zero_grad()
                loss = mean_squared_error(model(inputs[batch])[:, 0], target[batch])
                loss.backward()
                optimizer.step()
                losses[epoch] += loss.item() * len(batch) / count
    return model, losses


def _model(plan: TrainingPlan, member: Member) -> torch.nn.Sequential:
    recipe: Recipe = plan.recipe
    first = first_network(plan.inputs.shape[1], recipe, seed=member.seed, fold=member.fold)
    layers: list[torch.nn.Module] = []
    for weight, bias in zip(first.weights, first.biases, strict=True):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=_dtype(plan))
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, torch.nn.GELU(), torch.nn.Dropout(recipe.dropout)]
    return torch.nn.Sequential(*layers[:-2])


def _dtype(plan: TrainingPlan) -> Any:
    return torch.float64 if plan.inputs.dtype == np.float64 else torch.float32


def _to_network(model: torch.nn.Sequential) -> Network:
    linears = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    return Network(
        tuple(linear.weight.detach().cpu().numpy() for linear in linears),
        tuple(linear.bias.detach().cpu().numpy() for linear in linears),
    )
