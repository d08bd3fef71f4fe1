"""The network: its shapes, its first weights, and what trained weights return."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from loso.engine.counter import Purpose, member_key
from loso.recipe import Recipe

__all__ = ["Network", "first_network", "layer_shapes"]

_ROWS_AT_ONCE = 16_384  # keeps the activations of wide layers in tens of megabytes


def layer_shapes(inputs: int, recipe: Recipe) -> list[tuple[int, int]]:
    """Return (outputs, inputs) of every linear layer, the one that gives the score last."""
    widths = [inputs, *[recipe.hidden] * recipe.depth, 1]
    return [(out, into) for into, out in pairwise(widths)]


@dataclass(frozen=True)
class Network:
    """Weights (outputs, inputs) and biases (outputs,) of linear layers with GELU between them."""

    weights: tuple[NDArray[np.floating], ...]
    biases: tuple[NDArray[np.floating], ...]

    def predict(self, inputs: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the score of each row of standardised `inputs` (rows, inputs), in float64."""
        pieces = [
            self._forward(inputs[start : start + _ROWS_AT_ONCE])
            for start in range(0, len(inputs), _ROWS_AT_ONCE)
        ]
        return np.concatenate(pieces) if pieces else np.empty(0)

    def rescaled(self, mean: float, std: float) -> Network:
        """Return the network whose score is `mean` + `std` times this one's."""
        if (mean, std) == (0.0, 1.0):
            return self
        kind = self.weights[-1].dtype.type
        return Network(
            (*self.weights[:-1], self.weights[-1] * kind(std)),
            (*self.biases[:-1], self.biases[-1] * kind(std) + kind(mean)),
        )

    def _forward(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        from scipy.special import erf

        x = rows.astype(np.float64)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = x @ weight.astype(np.float64).T + bias
            x *= 0.5 * (1.0 + erf(x / math.sqrt(2.0)))
        score: NDArray[np.float64] = x @ self.weights[-1][0].astype(np.float64) + self.biases[-1][0]
        return score


def first_network(inputs: int, recipe: Recipe, *, seed: int, fold: int) -> Network:
    """Return the untrained network of one member, in float64.

    As torch.nn.Linear does, weights and biases are uniform in +-1/sqrt(inputs of the layer).
    """
    (key,) = member_key(seed, fold, Purpose.WEIGHTS)
    random = np.random.Generator(np.random.Philox(key=int(key)))
    weights, biases = [], []
    for out, into in layer_shapes(inputs, recipe):
        bound = 1.0 / math.sqrt(into)
        weights.append(random.uniform(-bound, bound, (out, into)))
        biases.append(random.uniform(-bound, bound, out))
    return Network(tuple(weights), tuple(biases))
