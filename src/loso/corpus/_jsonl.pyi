import numpy as np
from numpy.typing import NDArray

def read_flat(
    content: bytes, threads: int
) -> dict[str, NDArray[np.int64 | np.float64] | tuple[NDArray[np.uint32], list[str]]] | None: ...
