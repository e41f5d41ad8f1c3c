from numpy.typing import ArrayLike

from ._cache import Cache, Gradients, _FloatArray

def backward(dy: ArrayLike, cache: Cache, *, out: _FloatArray | None = None) -> Gradients: ...
