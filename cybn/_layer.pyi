# Only what is public, by inheritance.
from collections.abc import Mapping
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._cache import Cache, _Activation, _Float, _FloatArray, _Parameter

class Layer:
    eps: float
    affine: bool
    dtype: np.dtype[np.floating[Any]]
    gamma: _Parameter
    beta: _Parameter
    dgamma: _Parameter
    dbeta: _Parameter
    cache: Cache | None
    @property
    def training(self) -> bool: ...
    def train(self, mode: bool = True) -> Self: ...
    def eval(self) -> Self: ...
    @overload
    def __call__(
        self,
        x: NDArray[_Float],
        *,
        training: bool | None = None,
        out: NDArray[_Float] | None = None,
    ) -> NDArray[_Float]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        *,
        training: bool | None = None,
        out: _FloatArray | None = None,
    ) -> _FloatArray: ...
    def backward(self, dy: ArrayLike, *, out: _FloatArray | None = None) -> _FloatArray: ...
    def state_dict(self) -> dict[str, Any]: ...  # of arrays, for np.savez(path, **state)
    def load_state_dict(self, state: Mapping[str, Any], prefix: str = "") -> None: ...

class ChannelLayer(Layer):
    axis: int
    activation: _Activation
    dresidual: _Parameter
    @overload
    def __call__(
        self,
        x: NDArray[_Float],
        *,
        residual: ArrayLike | None = None,
        training: bool | None = None,
        out: NDArray[_Float] | None = None,
    ) -> NDArray[_Float]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        *,
        residual: ArrayLike | None = None,
        training: bool | None = None,
        out: _FloatArray | None = None,
    ) -> _FloatArray: ...
    def backward(
        self,
        dy: ArrayLike,
        *,
        out: _FloatArray | None = None,
        residual_out: _FloatArray | None = None,
    ) -> _FloatArray: ...

class TrackingLayer(ChannelLayer):
    num_features: int
    momentum: float | None
    track_running_stats: bool
    running_mean: _Parameter
    running_var: _Parameter
    num_batches_tracked: int
    def reset_running_stats(self) -> None: ...
