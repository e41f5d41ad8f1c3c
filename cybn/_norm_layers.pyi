from collections.abc import Sequence
from typing import SupportsIndex

from numpy.typing import DTypeLike

from ._cache import _Activation
from ._layer import ChannelLayer, Layer, TrackingLayer

class _TrailingNorm(Layer):
    normalized_shape: tuple[int, ...]

class LayerNorm(_TrailingNorm):
    def __init__(
        self,
        normalized_shape: SupportsIndex | Sequence[SupportsIndex],
        *,
        eps: float = 1e-5,
        affine: bool = True,
        bias: bool = True,
        dtype: DTypeLike = ...,
    ) -> None: ...

class RMSNorm(_TrailingNorm):
    beta: None
    dbeta: None
    def __init__(
        self,
        normalized_shape: SupportsIndex | Sequence[SupportsIndex],
        *,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: DTypeLike = ...,
    ) -> None: ...

class GroupNorm(ChannelLayer):
    num_groups: int
    num_channels: int
    def __init__(
        self,
        num_groups: SupportsIndex,
        num_channels: SupportsIndex,
        *,
        axis: SupportsIndex = 1,
        eps: float = 1e-5,
        affine: bool = True,
        bias: bool = True,
        activation: _Activation = None,
        dtype: DTypeLike = ...,
    ) -> None: ...

class InstanceNorm(TrackingLayer):
    momentum: float
    def __init__(
        self,
        num_features: SupportsIndex,
        *,
        axis: SupportsIndex = 1,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        bias: bool = True,
        track_running_stats: bool = False,
        activation: _Activation = None,
        dtype: DTypeLike = ...,
    ) -> None: ...
