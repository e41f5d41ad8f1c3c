"""More elements than 32 bits can count. Their memory repeats one block, so that it takes little."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cybn

if not sys.platform.startswith("linux"):
    pytest.skip("needs memory that repeats", allow_module_level=True)

from memory import repeating

COUNT = 2**31 + 64
BLOCK = 2**20


def block_of(rng, channels):
    """Small integers: sums are exact in any order."""
    return rng.integers(-4, 5, (BLOCK // channels, channels)).astype(np.float32)


def sum_repeated(block, n):
    """The sum over n rows, which are those of the block again and again."""
    times, rest = divmod(n, len(block))
    return times * block.sum(axis=0, dtype=np.float64) + block[:rest].sum(axis=0, dtype=np.float64)


@pytest.mark.parametrize(("shape", "axis"), [((COUNT // 32, 32), 1), ((1, COUNT), 0)], ids=str)
def test_forward_and_backward(rng, shape, axis):
    channels, n = shape[axis], COUNT // shape[axis]
    x_block, dy_block = block_of(rng, channels), block_of(rng, channels)
    x, dy = repeating(x_block, shape), repeating(dy_block, shape)
    result = repeating(np.zeros_like(x_block), shape)
    first = result.reshape(-1)[:BLOCK].reshape(x_block.shape)

    _, cache = cybn.forward(x, None, np.zeros(channels), axis=axis, out=result)

    mean = sum_repeated(x_block, n) / n
    assert_allclose(cache.mean, mean, rtol=0, atol=1e-15)
    assert_allclose(cache.var, sum_repeated(x_block**2, n) / n - mean**2, rtol=1e-14)
    xhat = (x_block - mean) * cache.invstd
    assert_allclose(first, xhat, rtol=1e-6, atol=1e-12)

    dbeta = cybn.backward(dy, cache, out=result).dbeta

    assert_array_equal(dbeta, sum_repeated(dy_block, n))
    dgamma = (sum_repeated(dy_block * x_block, n) - mean * dbeta) * cache.invstd
    dx = (dy_block - dbeta / n - xhat * dgamma / n) * cache.invstd
    assert_allclose(first, dx, rtol=1e-6, atol=1e-12)
