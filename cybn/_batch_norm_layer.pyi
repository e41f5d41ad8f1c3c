from contextlib import AbstractContextManager
from typing import Self, SupportsIndex

from numpy.typing import ArrayLike, DTypeLike

from ._layer import TrackingLayer, _FloatArray

class BatchNorm(TrackingLayer):
    num_values_tracked: int
    def __init__(
        self,
        num_features: SupportsIndex,
        *,
        axis: SupportsIndex = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: DTypeLike = ...,
    ) -> None: ...
    def freeze(self, mode: bool = True) -> Self: ...
    def __call__(
        self, x: ArrayLike, *, where: ArrayLike | None = None, out: _FloatArray | None = None
    ) -> _FloatArray: ...

def calibrate(*layers: BatchNorm) -> AbstractContextManager[None]: ...
