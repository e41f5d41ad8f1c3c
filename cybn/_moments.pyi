from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

class Moments:
    __array_ufunc__: None
    count: int | NDArray[np.int64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    def __init__(self, count: ArrayLike, mean: ArrayLike, m2: ArrayLike) -> None: ...
    def __add__(self, other: Moments) -> Moments: ...
    def __radd__(self, other: int) -> Moments: ...
    def var(self, ddof: SupportsIndex = 0) -> NDArray[np.float64]: ...
    def std(self, ddof: SupportsIndex = 0) -> NDArray[np.float64]: ...

def moments(
    x: ArrayLike,
    axis: SupportsIndex | tuple[SupportsIndex, ...] = 1,
    where: ArrayLike | None = None,
) -> Moments: ...
