"""weight_standardize by hand, and the identities of standardized weights."""

import numpy as np
import pytest
from cases import DTYPES
from numpy.testing import assert_allclose, assert_array_equal

import cybn


def test_by_hand():
    """Mean 2, biased variance 1, std 2 with eps: w_hat = -1/2, 1/2."""
    w_hat, cache = cybn.weight_standardize(np.array([[1.0, 3.0], [7.0, 5.0]]), eps=3.0)
    gradients = cybn.backward(np.array([[1.0, 0.0], [0.0, 0.0]]), cache)
    assert_array_equal(w_hat, [[-0.5, 0.5], [0.5, -0.5]])
    # dw = (dw_hat - mean(dw_hat) - w_hat * mean(dw_hat * w_hat)) / std
    assert_array_equal(gradients.dx, [[(1 - 0.5 - 0.125) / 2, (0 - 0.5 + 0.125) / 2], [0, 0]])
    assert gradients.dgamma is None
    assert gradients.dbeta is None


def test_defaults_are_axis_0_and_eps_1e_5(rng):
    w = rng.normal(size=(4, 3, 5))
    explicit, _ = cybn.weight_standardize(w, axis=0, eps=1e-5)
    assert_array_equal(cybn.weight_standardize(w)[0], explicit)


@pytest.mark.parametrize("shape", [(8, 33), (8, 4, 3), (8, 4, 3, 3)])
def test_each_output_channel_has_mean_0_and_variance_1(rng, shape):
    w = rng.normal(0.3, 0.01, shape)
    w_hat, _ = cybn.weight_standardize(w, eps=1e-30)
    rows = w_hat.reshape(8, -1)
    assert_allclose(rows.mean(axis=1), np.zeros(8), atol=1e-13)
    assert_allclose(rows.var(axis=1), np.ones(8), rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_channels_last(rng, dtype):
    """Convolution weights stored (height, width, in, out)."""
    w = rng.normal(size=(8, 4, 3, 3)).astype(dtype)
    expected, _ = cybn.weight_standardize(w)
    actual, _ = cybn.weight_standardize(np.moveaxis(w, 0, -1), axis=-1)
    tolerance = 8 * np.finfo(dtype).eps
    assert_allclose(np.moveaxis(actual, -1, 0), expected, rtol=tolerance, atol=tolerance)


def test_gradient_is_orthogonal_to_ones_and_to_the_weights(rng):
    """Shifting or stretching a channel's weights changes nothing."""
    w, dy = rng.normal(size=(2, 8, 4, 3, 3))
    w_hat, cache = cybn.weight_standardize(w, eps=1e-30)
    dw = cybn.backward(dy, cache).dx
    assert_allclose(dw.sum(axis=(1, 2, 3)), np.zeros(8), atol=1e-12)
    assert_allclose((dw * w_hat).sum(axis=(1, 2, 3)), np.zeros(8), atol=1e-12)


def test_constant_channel_becomes_0():
    w = np.full((2, 9), 0.1, np.float32)
    assert_array_equal(cybn.weight_standardize(w)[0], np.zeros((2, 9)))
