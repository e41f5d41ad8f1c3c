from contextlib import AbstractContextManager
from typing import Self, SupportsIndex, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ._cache import _Activation, _Float, _FloatArray
from ._group import Communicator, Group
from ._layer import TrackingLayer

class BatchNorm(TrackingLayer):
    group: Group | Communicator | None
    num_values_tracked: int | NDArray[np.int64]
    def __init__(
        self,
        num_features: SupportsIndex,
        *,
        axis: SupportsIndex = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        bias: bool = True,
        track_running_stats: bool = True,
        activation: _Activation = None,
        group: Group | Communicator | None = None,
        dtype: DTypeLike = ...,
    ) -> None: ...
    def freeze(self, mode: bool = True) -> Self: ...
    @overload
    def __call__(
        self,
        x: NDArray[_Float],
        *,
        where: ArrayLike | None = None,
        residual: ArrayLike | None = None,
        training: bool | None = None,
        out: NDArray[_Float] | None = None,
    ) -> NDArray[_Float]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        *,
        where: ArrayLike | None = None,
        residual: ArrayLike | None = None,
        training: bool | None = None,
        out: _FloatArray | None = None,
    ) -> _FloatArray: ...

def calibrate(*layers: BatchNorm) -> AbstractContextManager[None]: ...
