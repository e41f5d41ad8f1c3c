from typing import SupportsIndex, overload

from numpy.typing import ArrayLike, NDArray

from ._cache import Cache, _Activation, _Float, _FloatArray
from ._group import Communicator, Group

@overload
def batch_norm(
    x: NDArray[_Float],
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    running_mean: _FloatArray | None = None,
    running_var: _FloatArray | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    axis: SupportsIndex | tuple[SupportsIndex, ...] = 1,
    where: ArrayLike | None = None,
    activation: _Activation = None,
    residual: ArrayLike | None = None,
    group: Group | Communicator | None = None,
    out: NDArray[_Float] | None = None,
) -> tuple[NDArray[_Float], Cache[_Float]]: ...
@overload
def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    running_mean: _FloatArray | None = None,
    running_var: _FloatArray | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    axis: SupportsIndex | tuple[SupportsIndex, ...] = 1,
    where: ArrayLike | None = None,
    activation: _Activation = None,
    residual: ArrayLike | None = None,
    group: Group | Communicator | None = None,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...

forward = batch_norm
