from numpy.typing import ArrayLike, NDArray

from ._cache import Cache, Gradients, _Float, _FloatArray

def backward(
    dy: ArrayLike,
    cache: Cache[_Float],
    *,
    out: NDArray[_Float] | None = None,
    residual_out: _FloatArray | None = None,
) -> Gradients[_Float]: ...
