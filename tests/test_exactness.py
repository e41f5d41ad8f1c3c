"""Data whose sums are exact in any order: results must be equal, without a tolerance.

x are small integers with an integer mean, the same for each channel in another order, so that one
eps makes var + eps = 64 in all channels. Then 1 / std is 1/8, and y, dgamma and dbeta are exact.
"""

from itertools import product

import numpy as np
import pytest
from cases import DTYPES, tracked
from numpy.testing import assert_array_equal

import cybn

STD = 8.0


def around(*lengths):
    return [n + d for n in lengths for d in (-1, 0, 1)]


# (outer, channels, inner). Kernels have 32 lanes along, tiles of 1024, pieces of up to 64 rows
# across (16 of 1024 lanes, if several) and 256 along, that is, 8192 values, blocks of 32768
# values and 128 rows, and at most 64 blocks; an inner axis is summed along from 512 on.
SHAPES = [
    *product([1], [2], around(512, 544, 1024, 8192, 32768, 65536)),
    *product(around(64), [2], [513]),
    *product([3, 65], [1, 3], around(512)),
    *product([5, 200], around(32, 64, 1024, 1056), [1]),
    *product(around(64, 80, 128), [33, 1024], [1]),
    *product(around(32, 64, 2048), [1, 2, 3, 5, 16, 31], [1]),
    *product(around(32768, 65536), [1, 3], [1]),
    *product(around(64), [5], [7, 31, 32, 33, 204, 205]),
    *product(around(16, 64), [1, 2, 4], [7, 256, 511]),
    *product(around(16), [140], [7, 256]),
]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


class Data:
    """x with the exact values of its statistics; everything is of shape (C,) or as x."""

    def __init__(self, shape, dtype):
        outer, channels, inner = shape
        self.shape, self.dtype, self.n = shape, dtype, outer * inner
        rng = np.random.default_rng(self.n)
        values = rng.integers(-8, 9, self.n)
        values[: values.sum() % self.n] -= 1  # now their mean is an integer
        mean = values.sum() // self.n
        deviations = rng.permuted(np.tile(values - mean, (channels, 1)), axis=1)
        self.mean = rng.integers(-5, 6, channels)
        self.var = np.square(values - mean).sum() / self.n
        self.deviations = self.arranged(deviations)
        self.x = self.arranged(deviations + self.mean[:, None])
        self.gamma = rng.choice([-2.0, 0.5, 4.0], channels).astype(dtype)
        self.beta = rng.integers(-3, 4, channels).astype(dtype)

    def arranged(self, rows):
        """Give values of shape (C, n) the shape of x."""
        outer, channels, inner = self.shape
        rows = rows.reshape(channels, outer, inner).swapaxes(0, 1)
        return np.ascontiguousarray(rows, self.dtype)

    def forward(self, running=(None, None), out=None):
        return cybn.forward(
            self.x,
            self.gamma,
            self.beta,
            **tracked(running),
            momentum=0.5,
            eps=STD**2 - self.var,
            out=out,
        )


@every_dtype
@every_shape
def test_forward(shape, dtype):
    data = Data(shape, dtype)
    running_mean, running_var = np.full(shape[1], 2.0), np.ones(shape[1])

    y, cache = data.forward((running_mean, running_var), out=np.full_like(data.x, np.nan))

    assert_array_equal(cache.mean, data.mean)
    assert_array_equal(cache.var, np.full(shape[1], data.var))
    assert_array_equal(cache.invstd, np.full(shape[1], 1 / STD))
    assert_array_equal(running_mean, (2 + data.mean) / 2)
    slope, beta = data.gamma[:, None] / dtype(STD), data.beta[:, None]
    assert_array_equal(y, data.deviations * slope + beta)


@every_dtype
@every_shape
def test_gradients_of_parameters(shape, dtype):
    """dy is sparse, so that a value left out or taken twice is not hidden in a large sum."""
    data = Data(shape, dtype)
    rng = np.random.default_rng(1)
    dy = rng.integers(-4, 5, shape) * (rng.random(shape) < 0.1)

    _, dgamma, dbeta = cybn.backward(dy.astype(dtype), data.forward()[1])

    assert_array_equal(dbeta, dy.sum(axis=(0, 2)))
    assert_array_equal(dgamma, (dy * data.deviations.astype(np.int64)).sum(axis=(0, 2)) / STD)


@every_dtype
@every_shape
def test_gradient_of_input(shape, dtype):
    """dy has no mean and no part in the direction of x, so that dx = gamma / std * dy."""
    data = Data(shape, dtype)
    rows = np.moveaxis(data.deviations, 1, 0).reshape(shape[1], -1)
    order = np.argsort(rows, axis=1)
    ordered = np.take_along_axis(rows, order, axis=1)
    pairs = ordered[:, 1::2] == ordered[:, :-1:2]  # neighbours in order, of the same value
    signs = np.zeros(rows.shape)
    signs[:, : 2 * pairs.shape[1]] = np.stack([pairs, -1.0 * pairs], axis=2).reshape(shape[1], -1)
    dy = np.zeros(rows.shape)
    np.put_along_axis(dy, order, signs, axis=1)
    dy = data.arranged(dy)
    assert np.count_nonzero(dy) > dy.size // 2 or data.n < 40

    dx, dgamma, dbeta = cybn.backward(dy, data.forward()[1], out=np.full_like(dy, np.nan))

    assert_array_equal(dbeta, 0)
    assert_array_equal(dgamma, 0)
    assert_array_equal(dx, dy * (data.gamma[:, None] / dtype(STD)))
