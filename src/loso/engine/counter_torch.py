"""The draws of `loso.engine.counter`, bit for bit, computed by torch where its tensors are.

Torch has few operations for unsigned integers. So keys of 64 bits are int64 of the same bits, whose
sums and products wrap alike, and words of 32 bits are int64 in 0..2**32-1, masked after a product.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from loso.engine.counter import Keys, keep_threshold
from loso.engine.plan import TrainingPlan

__all__ = ["DeviceDraws", "dropout_bits", "fold_in", "shuffled"]

_GOLDEN: Final = 0x9E3779B97F4A7C15
_WORD: Final = 0xFFFFFFFF
_ROUNDS: Final = 8
_SMALLEST_DOMAIN_BITS: Final = 6
# Drawn at once: as many steps as fill these numbers, within these limits. Launches are dear.
_MASK_NUMBERS: Final = 2**26
_FEWEST_STEPS, _MOST_STEPS = 16, 512


class DeviceDraws:
    """Orders and dropout masks of all members, drawn on the device."""

    def __init__(
        self, plan: TrainingPlan, order_keys: Keys, dropout_keys: Keys, device: str
    ) -> None:
        self.recipe = recipe = plan.recipe
        number = plan.inputs.dtype.type
        self.dtype = torch.from_numpy(plan.inputs[:0]).dtype
        self.scale = float(number(1.0) / number(1.0 - recipe.dropout))
        of_a_step = len(plan.members) * recipe.depth * recipe.hidden * recipe.batch_size
        self.steps_at_once = max(_FEWEST_STEPS, min(_MASK_NUMBERS // of_a_step, _MOST_STEPS))
        self.order_keys = torch.from_numpy(order_keys.view(np.int64)).to(device)
        self.dropout_keys = torch.from_numpy(dropout_keys.view(np.int64)).to(device)

    def samples(self, epoch: Tensor, size: Tensor, place: Tensor) -> Tensor:
        """Return which sample stands at each place of an epoch: (members, steps, batch)."""
        return shuffled(fold_in(self.order_keys, epoch)[:, :, None], size, place)

    def masks(self, step: Tensor) -> list[Tensor]:
        """Return each hidden layer's mask: (members, steps, units, batch)."""
        step_keys = fold_in(self.dropout_keys, step)
        return [
            self._mask(fold_in(step_keys, layer))
            for layer in range(self.recipe.depth if self.recipe.dropout else 0)
        ]

    def _mask(self, keys: Tensor) -> Tensor:
        recipe = self.recipe
        bits = dropout_bits(keys.flatten(), recipe.hidden, recipe.batch_size)
        kept = (bits < keep_threshold(recipe.dropout)).to(self.dtype)
        return (kept * self.scale).view(*keys.shape, recipe.hidden, recipe.batch_size)


def fold_in(key: Tensor, word: int | Tensor) -> Tensor:
    """Return the key that `key` and `word` determine together; the two broadcast."""
    z = key + (torch.as_tensor(word) + 1) * _signed(_GOLDEN)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >> 63 else constant


def _shifted(z: Tensor, by: int) -> Tensor:
    """Return `z` shifted right with zeros moving in, where >> would copy the sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def shuffled(key: Tensor, size: Tensor, position: Tensor) -> Tensor:
    """Return where each position goes in a keyed permutation of 0..size-1; the three broadcast.

    All places walk until the last is inside, and the host asks after each walk whether it is: a
    score of short questions for a call, which therefore asks for many places.
    """
    powers = 1 << torch.arange(_SMALLEST_DOMAIN_BITS, 33, device=size.device)
    bits = _SMALLEST_DOMAIN_BITS + torch.bucketize(size, powers)
    low_bits = bits // 2
    rounds = torch.arange(_ROUNDS, device=key.device)
    round_keys = _shifted(fold_in(key[..., None], rounds), 32).unbind(-1)
    place = _feistel(position, low_bits, bits - low_bits, round_keys)
    while (outside := place >= size).any():
        walked = _feistel(place, low_bits, bits - low_bits, round_keys)
        place = torch.where(outside, walked, place)
    return place


def _feistel(
    value: Tensor,
    low_bits: Tensor,
    high_bits: Tensor,
    round_keys: tuple[Tensor, ...],
) -> Tensor:
    low = value & ((1 << low_bits) - 1)
    high = value >> low_bits
    for i, round_key in enumerate(round_keys):
        if i % 2:
            high = high ^ (_mix32(low ^ round_key) >> (32 - high_bits))
        else:
            low = low ^ (_mix32(high ^ round_key) >> (32 - low_bits))
    return (high << low_bits) | low


def _mix32(x: Tensor) -> Tensor:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)


def dropout_bits(key: Tensor, units: int, samples: int) -> Tensor:
    """Return 16 random bits for each key, unit and sample: shape (keys, units, samples)."""
    blocks = -(-samples // 32)
    counter = torch.arange(blocks * units * 16, device=key.device)
    low, high = key[:, None] & _WORD, _shifted(key[:, None], 32)
    x = (counter * (_GOLDEN >> 32) + low) & _WORD
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15) ^ high) * 0x846CA68B) & _WORD
    x = x ^ (x >> 16)
    words = x.view(len(key), blocks, units, 16).transpose(1, 2)
    halves = torch.stack((words & 0xFFFF, words >> 16), dim=3)
    return halves.reshape(len(key), units, blocks * 32)[:, :, :samples]
