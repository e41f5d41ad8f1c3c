from typing import Any, NamedTuple, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

_FloatArray: TypeAlias = NDArray[np.floating[Any]]

class Gradients(NamedTuple):
    dx: _FloatArray
    dgamma: _FloatArray | None
    dbeta: _FloatArray | None

class Cache:
    x: _FloatArray | None
    count: int | NDArray[np.int64]
    training: bool
    @property
    def mean(self) -> NDArray[np.float64]: ...
    @property
    def var(self) -> NDArray[np.float64]: ...
    @property
    def invstd(self) -> NDArray[np.float64]: ...

def forward(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    running_mean: _FloatArray | None = None,
    running_var: _FloatArray | None = None,
    *,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    axis: SupportsIndex | tuple[SupportsIndex, ...] = 1,
    where: ArrayLike | None = None,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
def backward(dy: ArrayLike, cache: Cache, *, out: _FloatArray | None = None) -> Gradients: ...
