from typing import SupportsIndex

from dask.array import Array
from dask.delayed import Delayed
from numpy.typing import ArrayLike

from ._batch_norm_layer import BatchNorm
from ._moments import Moments
from ._norm_layers import InstanceNorm

__all__ = ["moments", "normalize"]

_Axis = SupportsIndex | tuple[SupportsIndex, ...]

def moments(
    array: Array,
    axis: _Axis = 1,
    where: Array | ArrayLike | None = None,
    *,
    split_every: SupportsIndex | None = None,
) -> Delayed: ...
def normalize(
    array: Array,
    by: BatchNorm | InstanceNorm | Moments | Delayed,
    *,
    axis: _Axis | None = None,
    ddof: SupportsIndex = 0,
    eps: float = 0.0,
) -> Array: ...
