"""BatchNorm with momentum=None: the exact statistics of all values that it has seen."""

import numpy as np
import pytest
from cases import COPIES, DTYPES
from numpy.testing import assert_allclose, assert_array_equal

import cybn

SIZES = 1000, 2, 7, 64, 3, 501


def batches_of(rng, dtype):
    """Batches of very different sizes and means, far from 0."""
    return [rng.normal(1e4 + i, 1 + i, (n, 3, 2)).astype(dtype) for i, n in enumerate(SIZES)]


def assert_pooled(layer, batches):
    """Two-pass statistics of the concatenation; n - 1 as in PyTorch's running_var."""
    seen = np.concatenate(batches).astype(np.longdouble)
    assert_allclose(layer.running_mean, seen.mean(axis=(0, 2)), rtol=1e-14)
    assert_allclose(layer.running_var, seen.var(axis=(0, 2), ddof=1), rtol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_are_those_of_all_the_values(rng, dtype):
    layer = cybn.BatchNorm(3, momentum=None, dtype=dtype)
    batches = batches_of(rng, dtype)
    for i, batch in enumerate(batches):
        layer(batch)
        assert_pooled(layer, batches[: i + 1])
    assert layer.running_mean.dtype == layer.running_var.dtype == np.float64
    assert layer.num_batches_tracked == len(batches)


def test_statistics_are_used_in_eval(rng):
    layer = cybn.BatchNorm(3, momentum=None)
    for batch in batches_of(rng, np.float32):
        layer(batch)
    layer.eval()
    x = batches_of(rng, np.float32)[0]
    expected, _ = cybn.forward(
        x,
        None,
        None,
        running_mean=layer.running_mean,
        running_var=layer.running_var,
        training=False,
    )
    assert_array_equal(layer(x), expected)


def test_statistics_ignore_an_empty_batch_and_eval(rng):
    layer = cybn.BatchNorm(3, momentum=None)
    batches = batches_of(rng, np.float32)
    for batch in batches:
        layer(batch)
        layer(np.empty((0, 3, 2), np.float32))
        layer.eval()
        layer(batch + 100)
        layer.train()
    assert_pooled(layer, batches)


def test_each_batch_is_normalized_by_its_own_statistics(rng):
    layer = cybn.BatchNorm(3, momentum=None)
    for batch in batches_of(rng, np.float32):
        assert_array_equal(layer(batch), cybn.forward(batch)[0])


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_statistics_survive_copies(rng, make):
    layer = cybn.BatchNorm(3, momentum=None)
    batches = batches_of(rng, np.float32)
    for batch in batches:
        layer(batch)
        layer = make(layer)
    assert_pooled(layer, batches)
