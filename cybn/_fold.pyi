from typing import Any, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._layer import Layer

_Float = TypeVar("_Float", np.float32, np.float64)

@overload
def fold(
    weight: NDArray[_Float],
    bias: ArrayLike | None,
    bn: Layer,
    *,
    axis: SupportsIndex = 0,
) -> tuple[NDArray[_Float], NDArray[_Float]]: ...
@overload
def fold(
    weight: ArrayLike,
    bias: ArrayLike | None,
    bn: Layer,
    *,
    axis: SupportsIndex = 0,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
