from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

class Recipe:
    def __init__(
        self,
        *,
        inputs: int,
        hidden: int,
        depth: int,
        epochs: int,
        batch_size: int,
        lr: float,
        weight_decay: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        dropout: float,
        keep_threshold: int,
    ) -> None: ...

def train(
    isa: str,
    recipe: Recipe,
    inputs: NDArray[Any],
    target: NDArray[Any],
    train_rows: Sequence[NDArray[np.int32]],
    mean: NDArray[Any],
    std: NDArray[Any],
    target_scale: NDArray[Any],
    address: NDArray[np.int64],
    parameters: NDArray[Any],
    losses: NDArray[np.float64],
    threads: int,
    progress: Callable[[int, int], object],
) -> None: ...
def loss_and_gradient(
    isa: str,
    recipe: Recipe,
    inputs: NDArray[Any],
    target: NDArray[Any],
    dropout_key: int,
    parameters: NDArray[Any],
    gradient: NDArray[Any],
) -> float: ...
def gelu(isa: str, x: NDArray[Any], value: NDArray[Any], slope: NDArray[Any]) -> None: ...
def instruction_sets() -> list[str]: ...
def fma_peak(isa: str, seconds: float) -> float: ...
def member_key(seed: int, fold: int, purpose: int) -> int: ...
def fold_in(key: int, word: int) -> int: ...
def shuffled(key: int, places: NDArray[np.uint32]) -> None: ...
def dropout_masks(recipe: Recipe, key: int, block: int, masks: NDArray[np.float32]) -> None: ...
