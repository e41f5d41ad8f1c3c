from numpy.typing import ArrayLike, NDArray

from ._cache import Cache, Gradients, _Float

def backward(
    dy: ArrayLike, cache: Cache[_Float], *, out: NDArray[_Float] | None = None
) -> Gradients[_Float]: ...
