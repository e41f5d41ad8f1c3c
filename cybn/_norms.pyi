from typing import SupportsIndex, TypeAlias, overload

from numpy.typing import ArrayLike, NDArray

from ._cache import Cache, _Activation, _Float, _FloatArray

_Axes: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...]

@overload
def layer_norm(
    x: NDArray[_Float],
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: _Axes = -1,
    eps: float = 1e-5,
    out: NDArray[_Float] | None = None,
) -> tuple[NDArray[_Float], Cache[_Float]]: ...
@overload
def layer_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: _Axes = -1,
    eps: float = 1e-5,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
@overload
def rms_norm(
    x: NDArray[_Float],
    gamma: ArrayLike | None = None,
    *,
    axis: _Axes = -1,
    eps: float = 1e-5,
    out: NDArray[_Float] | None = None,
) -> tuple[NDArray[_Float], Cache[_Float]]: ...
@overload
def rms_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: _Axes = -1,
    eps: float = 1e-5,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
@overload
def instance_norm(
    x: NDArray[_Float],
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: SupportsIndex = 1,
    eps: float = 1e-5,
    activation: _Activation = None,
    residual: ArrayLike | None = None,
    out: NDArray[_Float] | None = None,
) -> tuple[NDArray[_Float], Cache[_Float]]: ...
@overload
def instance_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: SupportsIndex = 1,
    eps: float = 1e-5,
    activation: _Activation = None,
    residual: ArrayLike | None = None,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
@overload
def group_norm(
    x: NDArray[_Float],
    num_groups: SupportsIndex,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: SupportsIndex = 1,
    eps: float = 1e-5,
    activation: _Activation = None,
    residual: ArrayLike | None = None,
    out: NDArray[_Float] | None = None,
) -> tuple[NDArray[_Float], Cache[_Float]]: ...
@overload
def group_norm(
    x: ArrayLike,
    num_groups: SupportsIndex,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: SupportsIndex = 1,
    eps: float = 1e-5,
    activation: _Activation = None,
    residual: ArrayLike | None = None,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
@overload
def weight_standardize(
    w: NDArray[_Float],
    *,
    axis: SupportsIndex = 0,
    eps: float = 1e-5,
    out: NDArray[_Float] | None = None,
) -> tuple[NDArray[_Float], Cache[_Float]]: ...
@overload
def weight_standardize(
    w: ArrayLike,
    *,
    axis: SupportsIndex = 0,
    eps: float = 1e-5,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
