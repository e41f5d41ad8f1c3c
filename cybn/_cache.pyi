from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

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
