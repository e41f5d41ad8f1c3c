from typing import Any, Generic, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeVar

_FloatArray: TypeAlias = NDArray[np.floating[Any]]
# What is None only where there is no such parameter, or nothing has been computed yet: whoever has
# one uses it without an assert, as typeshed's "Any trick" does it.
_Parameter: TypeAlias = _FloatArray | Any
_Activation: TypeAlias = str | tuple[str, float] | None
_Float = TypeVar("_Float", bound=np.floating[Any])
_FloatOf = TypeVar(
    "_FloatOf", bound=np.floating[Any], default=np.floating[Any], covariant=True
)  # of x, whose dtype y and dx have

class _Gradients(NamedTuple, Generic[_FloatOf]):
    dx: NDArray[_FloatOf]
    dgamma: _Parameter
    dbeta: _Parameter

class Gradients(_Gradients[_FloatOf]):
    dresidual: _Parameter

class Cache(Generic[_FloatOf]):
    x: NDArray[_FloatOf] | None
    count: int | NDArray[np.int64]
    @property
    def training(self) -> bool: ...
    @property
    def mean(self) -> NDArray[np.float64]: ...
    @property
    def var(self) -> NDArray[np.float64]: ...
    @property
    def invstd(self) -> NDArray[np.float64]: ...
