from collections.abc import Mapping
from typing import Any, Self, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .functional import Cache

_FloatArray: TypeAlias = NDArray[np.floating[Any]]

class BatchNorm:
    num_features: int
    axis: int
    eps: float
    momentum: float | None
    affine: bool
    track_running_stats: bool
    dtype: np.dtype[np.floating[Any]]
    gamma: _FloatArray | None
    beta: _FloatArray | None
    dgamma: _FloatArray | None
    dbeta: _FloatArray | None
    running_mean: _FloatArray | None
    running_var: _FloatArray | None
    num_batches_tracked: int
    num_values_tracked: int
    cache: Cache | None
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
    def reset_running_stats(self) -> None: ...
    @property
    def training(self) -> bool: ...
    def train(self, mode: bool = True) -> Self: ...
    def eval(self) -> Self: ...
    def freeze(self, mode: bool = True) -> Self: ...
    def __call__(self, x: ArrayLike, *, out: _FloatArray | None = None) -> _FloatArray: ...
    def backward(self, dy: ArrayLike, *, out: _FloatArray | None = None) -> _FloatArray: ...
    def state_dict(self) -> dict[str, NDArray[Any]]: ...
    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None: ...
