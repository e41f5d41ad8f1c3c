from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._cache import Cache

_FloatArray: TypeAlias = NDArray[np.floating[Any]]
_Axes: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...]

def layer_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: _Axes = -1,
    eps: float = 1e-5,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
def rms_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: _Axes = -1,
    eps: float = 1e-5,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
def instance_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: SupportsIndex = 1,
    eps: float = 1e-5,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
def group_norm(
    x: ArrayLike,
    num_groups: SupportsIndex,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: SupportsIndex = 1,
    eps: float = 1e-5,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
def weight_standardize(
    w: ArrayLike,
    *,
    axis: SupportsIndex = 0,
    eps: float = 1e-5,
    out: _FloatArray | None = None,
) -> tuple[_FloatArray, Cache]: ...
