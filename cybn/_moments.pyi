from collections.abc import Iterable
from typing import Any, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Float = TypeVar("_Float", np.float32, np.float64)
_Axis = SupportsIndex | tuple[SupportsIndex, ...]

class Moments:
    __array_ufunc__: None
    count: int | NDArray[np.int64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    def __init__(self, count: ArrayLike, mean: ArrayLike, m2: ArrayLike) -> None: ...
    def __add__(self, other: Moments) -> Moments: ...
    def __radd__(self, other: int) -> Moments: ...
    @classmethod
    def merge(cls, parts: Iterable[Moments]) -> Moments: ...
    def var(self, ddof: SupportsIndex = 0) -> NDArray[np.float64]: ...
    def std(self, ddof: SupportsIndex = 0) -> NDArray[np.float64]: ...
    def scale(self, ddof: SupportsIndex = 0, eps: float = 0.0) -> NDArray[np.float64]: ...
    @overload
    def standardize(
        self,
        x: NDArray[_Float],
        *,
        axis: _Axis = 1,
        ddof: SupportsIndex = 0,
        eps: float = 0.0,
        out: NDArray[_Float] | None = None,
    ) -> NDArray[_Float]: ...
    @overload
    def standardize(
        self,
        x: ArrayLike,
        *,
        axis: _Axis = 1,
        ddof: SupportsIndex = 0,
        eps: float = 0.0,
        out: NDArray[np.floating[Any]] | None = None,
    ) -> NDArray[np.floating[Any]]: ...
    @overload
    def unstandardize(
        self,
        y: NDArray[_Float],
        *,
        axis: _Axis = 1,
        ddof: SupportsIndex = 0,
        eps: float = 0.0,
        out: NDArray[_Float] | None = None,
    ) -> NDArray[_Float]: ...
    @overload
    def unstandardize(
        self,
        y: ArrayLike,
        *,
        axis: _Axis = 1,
        ddof: SupportsIndex = 0,
        eps: float = 0.0,
        out: NDArray[np.floating[Any]] | None = None,
    ) -> NDArray[np.floating[Any]]: ...

def moments(
    x: ArrayLike,
    axis: _Axis = 1,
    where: ArrayLike | None = None,
) -> Moments: ...
