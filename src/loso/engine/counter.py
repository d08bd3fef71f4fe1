"""Randomness as a function of its address: no state, no order, the same in every engine.

A key is 64 bits, made by folding in what it is for (seed, fold, purpose, epoch or step, layer).
From a key and a position follow a sample's place in an epoch's order, or a dropout bit. Whoever
asks, in whatever order, on however many threads, gets the same answer.

The mixers are published finalisers: Stafford's variant 13 as in SplitMix64 (Steele, Lea, Flood
2014) for keys, and Wellons' `lowbias32` (hash-prospector) for 32-bit words.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Keys",
    "Purpose",
    "dropout_bits",
    "fold_in",
    "keep_threshold",
    "member_key",
    "shuffled",
]

_GOLDEN: Final = 0x9E3779B97F4A7C15
_ROUNDS: Final = 8
_SMALLEST_DOMAIN: Final = 64  # a Feistel network over fewer values favours some permutations

Keys = NDArray[np.uint64]


class Purpose(IntEnum):
    """What a key is for; streams of different purpose never meet."""

    WEIGHTS = 1
    ORDER = 2
    DROPOUT = 3


def fold_in(key: Keys, word: int | NDArray[np.int64] | Keys) -> Keys:
    """Return the key that `key` and `word` determine together; both may be arrays."""
    # At least one dimension: numpy wraps arrays silently, but warns where a scalar overflows.
    words = np.atleast_1d(word).astype(np.uint64)
    z = key + (words + np.uint64(1)) * np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def member_key(seed: int, fold: int, purpose: Purpose) -> Keys:
    """Return the key of one member for one purpose, as an array of shape (1,)."""
    key = np.zeros(1, dtype=np.uint64)
    for word in (seed, fold, purpose):
        key = fold_in(key, np.array([word], dtype=np.int64))
    return key


def shuffled(key: Keys, size: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each position goes in a keyed permutation of 0..size-1.

    The three broadcast against each other; `position` lies in 0..size-1. A Feistel network over
    the next power of two is a permutation of it for any round function; positions that land beyond
    `size` walk on along their cycle until they are back inside (Black and Rogaway 2002), which
    leaves a permutation of 0..size-1. No table is kept.
    """
    key, size, position = np.broadcast_arrays(key, size, position)
    bits = np.ceil(np.log2(np.maximum(size, _SMALLEST_DOMAIN))).astype(np.uint32)
    low_bits = bits // np.uint32(2)
    round_keys = [(fold_in(key, i) >> np.uint64(32)).astype(np.uint32) for i in range(_ROUNDS)]
    place = position.astype(np.uint32)
    outside = np.ones(place.shape, dtype=bool)
    while outside.any():
        place[outside] = _feistel(
            place[outside],
            low_bits[outside],
            (bits - low_bits)[outside],
            [round_key[outside] for round_key in round_keys],
        )
        outside = place >= size
    return place.astype(np.int64)


def _feistel(
    value: NDArray[np.uint32],
    low_bits: NDArray[np.uint32],
    high_bits: NDArray[np.uint32],
    round_keys: list[NDArray[np.uint32]],
) -> NDArray[np.uint32]:
    low = value & ((np.uint32(1) << low_bits) - np.uint32(1))
    high = value >> low_bits
    for i, round_key in enumerate(round_keys):
        # The halves may differ by a bit, so they take turns instead of changing places.
        if i % 2:
            high ^= _mix32(low, round_key) >> (np.uint32(32) - high_bits)
        else:
            low ^= _mix32(high, round_key) >> (np.uint32(32) - low_bits)
    return (high << low_bits) | low


def _mix32(value: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    x = value ^ key
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return np.asarray(x ^ (x >> np.uint32(16)))


def keep_threshold(dropout: float) -> int:
    """Return how many of the 65,536 values of `dropout_bits` keep a unit.

    The share kept is thereby 1 - dropout to within 1 in 131,072.
    """
    return round((1.0 - dropout) * 65536)


def dropout_bits(key: Keys, units: int, samples: int) -> NDArray[np.uint16]:
    """Return 16 random bits for each key, unit and sample: shape (keys, units, samples).

    Samples come in blocks of 32: one 32-bit word serves sample `lane` with its low half and sample
    `lane + 16` with its high half, so that a vector of 16 words serves 32 samples of a unit.
    """
    blocks = -(-samples // 32)
    counter = np.arange(blocks * units * 16, dtype=np.uint32)
    low, high = key.astype(np.uint32)[:, None], (key >> np.uint64(32)).astype(np.uint32)[:, None]
    x = counter * np.uint32(_GOLDEN >> 32) + low
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15)) ^ high) * np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    # Little-endian, a word's low half comes first: (..., lane, half) in place, no arithmetic.
    halves = x.astype("<u4", copy=False).view("<u2").reshape(len(key), blocks, units, 16, 2)
    ordered = halves.transpose(0, 2, 1, 4, 3).reshape(len(key), units, blocks * 32)
    return ordered[:, :, :samples]
