"""BatchNorm with momentum=None: the exact statistics of all values that it has seen."""

import numpy as np
import pytest
from cases import COPIES, DTYPES
from numpy.testing import assert_allclose, assert_array_equal

import cybn


class TestPooledStatistics:
    """momentum=None: the exact statistics of all values seen, whatever the sizes of the batches."""

    SIZES = (1000, 2, 7, 64, 3, 501)

    def batches(self, rng, dtype):
        """Batches of very different sizes and means, far from 0."""
        return [
            rng.normal(1e4 + i, 1 + i, (n, 3, 2)).astype(dtype) for i, n in enumerate(self.SIZES)
        ]

    def assert_pooled(self, layer, batches):
        """Two-pass statistics of the concatenation; n - 1 as in PyTorch's running_var."""
        seen = np.concatenate(batches).astype(np.longdouble)
        assert_allclose(layer.running_mean, seen.mean(axis=(0, 2)), rtol=1e-14)
        assert_allclose(layer.running_var, seen.var(axis=(0, 2), ddof=1), rtol=1e-11)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_are_those_of_all_the_values(self, rng, dtype):
        layer = cybn.BatchNorm(3, momentum=None, dtype=dtype)
        batches = self.batches(rng, dtype)
        for i, batch in enumerate(batches):
            layer(batch)
            self.assert_pooled(layer, batches[: i + 1])
        assert layer.running_mean.dtype == layer.running_var.dtype == np.float64
        assert layer.num_batches_tracked == len(batches)

    def test_are_used_in_eval(self, rng):
        layer = cybn.BatchNorm(3, momentum=None)
        for batch in self.batches(rng, np.float32):
            layer(batch)
        layer.eval()
        x = self.batches(rng, np.float32)[0]
        expected, _ = cybn.forward(
            x,
            None,
            None,
            running_mean=layer.running_mean,
            running_var=layer.running_var,
            training=False,
        )
        assert_array_equal(layer(x), expected)

    def test_ignore_an_empty_batch_and_eval(self, rng):
        layer = cybn.BatchNorm(3, momentum=None)
        batches = self.batches(rng, np.float32)
        for batch in batches:
            layer(batch)
            layer(np.empty((0, 3, 2), np.float32))
            layer.eval()
            layer(batch + 100)
            layer.train()
        self.assert_pooled(layer, batches)

    def test_normalize_each_batch_by_its_own_statistics(self, rng):
        layer = cybn.BatchNorm(3, momentum=None)
        for batch in self.batches(rng, np.float32):
            assert_array_equal(layer(batch), cybn.forward(batch)[0])

    @pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
    def test_survive_copies(self, rng, make):
        layer = cybn.BatchNorm(3, momentum=None)
        batches = self.batches(rng, np.float32)
        for batch in batches:
            layer(batch)
            layer = make(layer)
        self.assert_pooled(layer, batches)
