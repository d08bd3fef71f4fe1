"""All members at once: their weights stacked, one batched product for each layer of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from loso.engine.counter import (
    Keys,
    Purpose,
    dropout_bits,
    fold_in,
    keep_threshold,
    member_key,
    shuffled,
)
from loso.engine.network import Network, first_network
from loso.engine.plan import Trained, TrainingPlan
from loso.progress import Progress
from loso.recipe import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON

__all__ = ["train"]

_VECTOR = 16  # numbers in the widest vector register there is: 64 bytes of float32
_STEPS_AT_ONCE = 16  # orders and dropout bits are drawn for this many steps in one numpy call


def train(plan: TrainingPlan, *, device: str, progress: Progress) -> Trained:
    """Return every member of `plan`, trained side by side on `device`.

    A member that has had all its steps is copied out; its place in the stack idles on until the
    member with the most steps is done. With hidden layers of whole vectors (a multiple of 16
    units), a member's bytes do not depend on its company, of at least one; with others the
    products round by where a member stands.
    """
    stack = _Stack(plan, device)
    steps = np.array([plan.steps(member) for member in plan.members])
    losses = np.zeros((len(plan.members), plan.recipe.epochs))
    networks: dict[int, Network] = {}
    keys = {purpose: _keys(plan, purpose) for purpose in Purpose}
    for span in _spans(steps):
        draw = _draw(plan, span, keys)
        errors = np.stack([stack.step(draw, i) for i in range(len(span))], axis=1)
        counted = draw.epoch < plan.recipe.epochs
        member = np.broadcast_to(np.arange(len(steps))[:, None], counted.shape)
        np.add.at(
            losses, (member[counted], draw.epoch[counted]), (errors * draw.part_of_epoch)[counted]
        )
        for m in np.flatnonzero(steps == span.stop):
            networks[int(m)] = stack.network(int(m))
        progress(span.stop, int(steps.max()))
    return Trained(tuple(networks[m] for m in range(len(steps))), losses)


def _spans(steps: NDArray[np.int64]) -> Iterator[range]:
    """Yield runs of steps, each of which ends where some member ends or before."""
    start = 0
    for end in np.unique(steps).tolist():
        while start < end:
            stop = min(start + _STEPS_AT_ONCE, end)
            yield range(start, stop)
            start = stop


@dataclass(frozen=True)
class _Draw:
    """What every member uses in a run of steps."""

    rows: NDArray[np.int64]  # of the corpus: (members, steps, batch)
    share: NDArray[np.floating]  # of the step's mean loss: (members, steps, batch), 0 for padding
    masks: list[NDArray[np.floating]]  # a hidden layer: (members, steps, units, batch)
    epoch: NDArray[np.int64]  # (members, steps)
    part_of_epoch: NDArray[np.float64]  # share of the epoch's rows: (members, steps)


def _draw(plan: TrainingPlan, span: range, keys: Mapping[Purpose, Keys]) -> _Draw:
    batch_size, dtype = plan.recipe.batch_size, plan.inputs.dtype
    step = np.array(span)
    steps_an_epoch = np.array([plan.steps_an_epoch(member) for member in plan.members])
    size = np.array([len(member.train) for member in plan.members])[:, None, None]
    epoch, batch = np.divmod(step, steps_an_epoch[:, None])
    place = batch[:, :, None] * batch_size + np.arange(batch_size)
    used = place < size
    key = fold_in(keys[Purpose.ORDER], epoch)[:, :, None]
    sample = shuffled(key, size, np.minimum(place, size - 1))
    return _Draw(
        rows=np.stack([m.train[s] for m, s in zip(plan.members, sample, strict=True)]).astype(int),
        share=(used / used.sum(axis=2, keepdims=True)).astype(dtype),
        masks=_dropout_masks(plan, fold_in(keys[Purpose.DROPOUT], step)),
        epoch=epoch,
        part_of_epoch=used.sum(axis=2) / size[:, :, 0],
    )


def _dropout_masks(plan: TrainingPlan, step_keys: Keys) -> list[NDArray[np.floating]]:
    """Return for each hidden layer 0 for a dropped unit and 1/(1 - dropout) for a kept one."""
    recipe = plan.recipe
    if not recipe.dropout:
        return []
    masks = []
    for layer in range(recipe.depth):
        bits = dropout_bits(
            fold_in(step_keys, layer).ravel(), recipe.hidden, recipe.batch_size
        ).reshape(*step_keys.shape, recipe.hidden, recipe.batch_size)
        kept = (bits < keep_threshold(recipe.dropout)).astype(plan.inputs.dtype)
        masks.append(kept / plan.inputs.dtype.type(1.0 - recipe.dropout))
    return masks


def _keys(plan: TrainingPlan, purpose: Purpose) -> Keys:
    """Return one key a member, shape (members, 1)."""
    return np.stack([member_key(m.seed, m.fold, purpose) for m in plan.members])


class _Stack:
    """Parameters of all members in one flat buffer, a row for each, and their optimiser."""

    def __init__(self, plan: TrainingPlan, device: str) -> None:
        def put(array: NDArray[np.generic]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        dtype, recipe = plan.inputs.dtype, plan.recipe
        self.put = put
        self.inputs = put(plan.inputs)
        self.target = put(plan.target.astype(dtype))
        self.mean = put(np.stack([m.mean for m in plan.members])[:, None].astype(dtype))
        self.std = put(np.stack([m.std for m in plan.members])[:, None].astype(dtype))
        first = [
            first_network(plan.inputs.shape[1], recipe, seed=m.seed, fold=m.fold)
            for m in plan.members
        ]
        arrays = [
            *(np.stack([n.weights[i] for n in first]) for i in range(recipe.depth + 1)),
            *(np.stack([n.biases[i] for n in first])[:, :, None] for i in range(recipe.depth + 1)),
        ]
        size = sum(array[0].size for array in arrays)
        # The fused Adam rounds the end of its tensor, where no whole vector fits, in another way:
        # with rows of whole vectors a member's bytes do not depend on who stands beside it.
        row = -(-size // _VECTOR) * _VECTOR
        self.flat = torch.zeros((len(first), row), dtype=self.inputs.dtype, device=device)
        self.flat.grad = torch.zeros_like(self.flat)
        self.layers = _views(self.flat, arrays)
        self.gradients = _views(self.flat.grad, arrays)
        for layer, array in zip(self.layers, arrays, strict=True):
            layer.copy_(put(array)).requires_grad_()
        self.weights = self.layers[: recipe.depth + 1]
        self.biases = self.layers[recipe.depth + 1 :]
        self.optimizer = torch.optim.Adam(
            [self.flat],
            lr=recipe.lr,
            betas=(ADAM_BETA1, ADAM_BETA2),
            eps=ADAM_EPSILON,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def step(self, draw: _Draw, i: int) -> NDArray[np.floating]:
        """Take step `i` of a draw with every member; return their mean squared errors before it."""
        rows = self.put(draw.rows[:, i])
        x = ((self.inputs[rows] - self.mean) / self.std).mT
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, weight, x)
            if layer < len(self.weights) - 1:
                x = torch.nn.functional.gelu(x)
                if draw.masks:
                    x = x * self.put(draw.masks[layer][:, i])
        loss = ((x[:, 0] - self.target[rows]).square() * self.put(draw.share[:, i])).sum(1)
        of_step = torch.autograd.grad(loss.sum(), self.layers)
        for gradient, found in zip(self.gradients, of_step, strict=True):
            gradient.copy_(found)
        self.optimizer.step()
        return np.asarray(loss.detach().cpu().numpy())

    def network(self, member: int) -> Network:
        """Return a copy of one member's network as it is now."""
        return Network(
            tuple(w[member].detach().cpu().numpy().copy() for w in self.weights),
            tuple(b[member, :, 0].detach().cpu().numpy().copy() for b in self.biases),
        )


def _views(flat: torch.Tensor, arrays: Sequence[NDArray[np.floating]]) -> list[torch.Tensor]:
    """Return parts of a buffer (members, numbers) in the shapes of `arrays`, one after another."""
    stops = np.cumsum([array[0].size for array in arrays]).tolist()
    return [
        flat[:, stop - array[0].size : stop].view(array.shape)
        for array, stop in zip(arrays, stops, strict=True)
    ]
