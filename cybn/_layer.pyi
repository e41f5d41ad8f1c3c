# Only what is public, by inheritance.
from collections.abc import Mapping
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._cache import Cache

_FloatArray: TypeAlias = NDArray[np.floating[Any]]

class Layer:
    eps: float
    affine: bool
    dtype: np.dtype[np.floating[Any]]
    gamma: _FloatArray | None
    beta: _FloatArray | None
    dgamma: _FloatArray | None
    dbeta: _FloatArray | None
    cache: Cache | None
    @property
    def training(self) -> bool: ...
    def train(self, mode: bool = True) -> Self: ...
    def eval(self) -> Self: ...
    def __call__(self, x: ArrayLike, *, out: _FloatArray | None = None) -> _FloatArray: ...
    def backward(self, dy: ArrayLike, *, out: _FloatArray | None = None) -> _FloatArray: ...
    def state_dict(self) -> dict[str, NDArray[Any]]: ...
    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None: ...

class TrackingLayer(Layer):
    num_features: int
    axis: int
    momentum: float | None
    track_running_stats: bool
    running_mean: _FloatArray | None
    running_var: _FloatArray | None
    num_batches_tracked: int
    def reset_running_stats(self) -> None: ...
