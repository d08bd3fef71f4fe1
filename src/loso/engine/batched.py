"""All members at once: their weights stacked, one batched product for each layer of all of them.

On the CPU numpy draws orders and dropout masks and each step is called. On CUDA both would be bound
by launches and copies: there the device draws, the same bits, and replays one captured step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loso.engine.counter import (
    Keys,
    Purpose,
    dropout_bits,
    fold_in,
    keep_threshold,
    member_key,
    shuffled,
)
from loso.engine.counter_torch import DeviceDraws
from loso.engine.network import Network, first_network
from loso.engine.plan import Trained, TrainingPlan
from loso.progress import Progress
from loso.recipe import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON

__all__ = ["train"]

_VECTOR: Final = 16  # numbers in the widest vector register there is: 64 bytes of float32
_STEPS_AT_ONCE: Final = 16  # drawn in one numpy call: their masks stay near the core
_WARM_UPS: Final = 3  # runs before capture, as torch's notes on CUDA graphs ask

# What every member uses in a run of steps, each of shape (members, steps, ...): `rows` of the
# corpus (..., batch); `share` of the step's mean loss (..., batch), 0 for padding; `epoch`;
# `part` of the epoch's rows that the step has; and a hidden layer's mask (..., units, batch).
_Draw = list[Tensor]


def train(
    plan: TrainingPlan, *, device: str, progress: Progress, replayed: bool | None = None
) -> Trained:
    """Return every member of `plan`, trained side by side on `device`.

    A member that has had all its steps is copied out; its place in the stack idles on until the
    member with the most steps is done. With hidden layers of whole vectors (a multiple of 16
    units), a member's bytes do not depend on its company, of at least one; with others the
    products round by where a member stands. `replayed`: draw on the device and replay the step
    as a graph, by default on CUDA; the test of both on the CPU is its other use.
    """
    if replayed is None:
        replayed = device == "cuda"
    stack = _Stack(plan, device)
    rows = _Rows(plan, device)
    order, dropout = (_keys(plan, purpose) for purpose in (Purpose.ORDER, Purpose.DROPOUT))
    draws: _HostDraws | DeviceDraws
    if replayed:
        draws = DeviceDraws(plan, order, dropout, device)
    else:
        draws = _HostDraws(plan, order, dropout)
    runner = _Replay(stack, draws.steps_at_once) if replayed else stack
    steps = np.array([plan.steps(member) for member in plan.members])
    networks: dict[int, Network] = {}
    for span in _spans(steps, draws.steps_at_once):
        runner.run(rows.draw(span, draws), len(span))
        for m in np.flatnonzero(steps == span.stop):
            networks[int(m)] = stack.network(int(m))
        progress(span.stop, int(steps.max()))
    losses = stack.losses[:, :-1].cpu().numpy()
    return Trained(tuple(networks[m] for m in range(len(steps))), losses)


def _spans(steps: NDArray[np.int64], at_once: int) -> Iterator[range]:
    """Yield runs of steps, each of which ends where some member ends or before."""
    start = 0
    for end in np.unique(steps).tolist():
        while start < end:
            stop = min(start + at_once, end)
            yield range(start, stop)
            start = stop


class _HostDraws:
    """Orders and dropout masks, drawn by numpy."""

    steps_at_once = _STEPS_AT_ONCE

    def __init__(self, plan: TrainingPlan, order_keys: Keys, dropout_keys: Keys) -> None:
        self.plan = plan
        self.order_keys = order_keys
        self.dropout_keys = dropout_keys

    def samples(self, epoch: Tensor, size: Tensor, place: Tensor) -> Tensor:
        """Return which sample stands at each place of an epoch: (members, steps, batch)."""
        keys = fold_in(self.order_keys, epoch.numpy())[:, :, None]
        return torch.from_numpy(shuffled(keys, size.numpy(), place.numpy()))

    def masks(self, step: Tensor) -> list[Tensor]:
        """Return each hidden layer's mask: (members, steps, units, batch)."""
        masks = _dropout_masks(self.plan, fold_in(self.dropout_keys, step.numpy()))
        return [torch.from_numpy(mask) for mask in masks]


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


class _Rows:
    """Each member's training rows on the device, and which of them a step takes."""

    def __init__(self, plan: TrainingPlan, device: str) -> None:
        members = plan.members
        self.batch_size = plan.recipe.batch_size
        self.epochs = plan.recipe.epochs
        self.dtype = torch.from_numpy(plan.inputs[:0]).dtype
        # Members of several seeds share the rows of a fold: they are stored once.
        stored = {id(member.train): member.train for member in members}
        starts = np.cumsum([0, *map(len, stored.values())])
        start = dict(zip(stored, starts.tolist(), strict=False))

        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, device=device)[:, None]

        self.train = torch.from_numpy(np.concatenate(list(stored.values()))).to(device)
        self.start = column([start[id(member.train)] for member in members])[:, :, None]
        self.size = column([len(member.train) for member in members])[:, :, None]
        self.steps_an_epoch = column([plan.steps_an_epoch(member) for member in members])

    def draw(self, span: range, draws: _HostDraws | DeviceDraws) -> _Draw:
        device = self.train.device
        step = torch.arange(span.start, span.stop, device=device)
        epoch = step // self.steps_an_epoch
        batch = step % self.steps_an_epoch
        place = batch[:, :, None] * self.batch_size + torch.arange(self.batch_size, device=device)
        used = place < self.size
        count = used.sum(dim=2, keepdim=True).double()
        sample = draws.samples(epoch, self.size, place.minimum(self.size - 1))
        return [
            self.train[self.start + sample].long(),
            (used / count).to(self.dtype),
            epoch.clamp(max=self.epochs),
            (count / self.size)[:, :, 0],
            *draws.masks(step),
        ]


class _Stack:
    """Parameters of all members in one flat buffer, a row for each, and their optimiser."""

    def __init__(self, plan: TrainingPlan, device: str) -> None:
        def put(array: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        dtype, recipe = plan.inputs.dtype, plan.recipe
        self.inputs = put(plan.inputs)
        self.target = put(plan.target.astype(dtype))
        self.mean = put(np.stack([m.mean for m in plan.members])[:, None].astype(dtype))
        self.std = put(np.stack([m.std for m in plan.members])[:, None].astype(dtype))
        self.target_mean = put(np.array([[m.target_mean] for m in plan.members], dtype))
        self.target_std = put(np.array([[m.target_std] for m in plan.members], dtype))
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
            capturable=device == "cuda",
        )
        # The last column takes what members give that have had all their epochs.
        shape = (len(first), recipe.epochs + 1)
        self.losses = torch.zeros(shape, dtype=torch.float64, device=device)

    def run(self, draw: _Draw, steps: int) -> None:
        """Take the first `steps` steps of a draw."""
        for i in range(steps):
            self.step([of[:, i] for of in draw])

    def step(self, now: _Draw) -> None:
        """Take one step, a draw without its dimension of steps; add up the errors before it."""
        rows, share, epoch, part, *masks = now
        x = ((self.inputs[rows] - self.mean) / self.std).mT
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, weight, x)
            if layer < len(self.weights) - 1:
                x = torch.nn.functional.gelu(x)
                if masks:
                    x = x * masks[layer]
        target = (self.target[rows] - self.target_mean) / self.target_std
        loss = ((x[:, 0] - target).square() * share).sum(1)
        of_step = torch.autograd.grad(loss.sum(), self.layers)
        for gradient, found in zip(self.gradients, of_step, strict=True):
            gradient.copy_(found)
        self.optimizer.step()
        self.losses.scatter_add_(1, epoch[:, None], (loss.detach() * part)[:, None])

    def restart(self, first: Tensor) -> None:
        """Go back to the weights `first`, with the optimiser and the losses as if new."""
        self.flat.copy_(first)
        moments = [of for state in self.optimizer.state.values() for of in state.values()]
        for tensor in [self.losses, *moments]:
            tensor.zero_()

    def network(self, member: int) -> Network:
        """Return a copy of one member's network as it is now."""
        return Network(
            tuple(w[member].detach().cpu().numpy().copy() for w in self.weights),
            tuple(b[member, :, 0].detach().cpu().numpy().copy() for b in self.biases),
        )


class _Replay:
    """One captured step of a stack, replayed: it finds its draw and its number in place."""

    def __init__(self, stack: _Stack, steps_at_once: int) -> None:
        self.stack = stack
        self.steps_at_once = steps_at_once
        self.draw: _Draw = []
        self.i = torch.zeros(1, dtype=torch.int64, device=stack.flat.device)
        self.replay: Callable[[], None] | None = None

    def run(self, draw: _Draw, steps: int) -> None:
        """Take the first `steps` steps of a draw."""
        if self.replay is None:
            self.draw = [of.new_zeros((len(of), self.steps_at_once, *of.shape[2:])) for of in draw]
            first = self.stack.flat.clone()
            self.replay = _captured(self._step)
            self.stack.restart(first)
        for place, drawn in zip(self.draw, draw, strict=True):
            place[:, :steps] = drawn
        self.i.zero_()
        for _ in range(steps):
            self.replay()

    def _step(self) -> None:
        self.stack.step([of.index_select(1, self.i)[:, 0] for of in self.draw])
        self.i += 1


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return what runs `step` again on CUDA in one launch, after some runs on a side stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _views(flat: Tensor, arrays: Sequence[NDArray[np.floating]]) -> list[Tensor]:
    """Return parts of a buffer (members, numbers) in the shapes of `arrays`, one after another."""
    stops = np.cumsum([array[0].size for array in arrays]).tolist()
    return [
        flat[:, stop - array[0].size : stop].view(array.shape)
        for array, stop in zip(arrays, stops, strict=True)
    ]
