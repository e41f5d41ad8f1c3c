"""What a call costs where the arithmetic costs nothing: the public API on (32, 64)."""

import numpy as np
import pytest

import cybn
from bench import baseline
from bench.cells import Cell, draw


@pytest.fixture(scope="module")
def small():
    return draw(Cell("NC", (32, 64)), "float32")


@pytest.fixture(autouse=True)
def _one_group(benchmark):
    benchmark.group = "(32, 64)"


def _expected(p):
    return baseline.reference(p, "training")[0]


def test_baseline(benchmark, small):
    y = benchmark(baseline.training, small.x, small.gamma, small.beta, small.cell.axis)
    np.testing.assert_allclose(y, _expected(small), atol=1e-5)


def test_forward(benchmark, small):
    y, _ = benchmark(cybn.forward, small.x, small.gamma, small.beta)
    np.testing.assert_allclose(y, _expected(small), atol=1e-5)


def test_forward_out(benchmark, small):
    out = np.empty_like(small.x)
    benchmark(cybn.forward, small.x, small.gamma, small.beta, out=out)
    np.testing.assert_allclose(out, _expected(small), atol=1e-5)


def test_backward(benchmark, small):
    _, cache = cybn.forward(small.x, small.gamma, small.beta)
    gradients = benchmark(cybn.backward, small.dy, cache)
    for gradient, expected in zip(gradients, baseline.reference(small, "backward"), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-4)


def test_layer(benchmark, small):
    layer = cybn.BatchNorm(small.cell.channels)
    layer.gamma[:], layer.beta[:] = small.gamma, small.beta
    y = benchmark(layer, small.x)
    np.testing.assert_allclose(y, _expected(small), atol=1e-5)
