"""layer_norm by hand, its axes, and what it is equal to. Sizes and bounds: test_norm_exact."""

import numpy as np
import pytest
from cases import DTYPES
from checks import assert_close
from numpy.testing import assert_allclose, assert_array_equal

import cybn
from cybn._runtime import kernels


def test_by_hand():
    """Mean 2, biased variance 1, std 2 with eps: x_hat = -1/2, 1/2."""
    x = np.array([[1.0, 3.0]])
    gamma, beta = np.array([4.0, 2.0]), np.array([7.0, 0.0])

    y, cache = cybn.layer_norm(x, gamma, beta, eps=3.0)
    dx, dgamma, dbeta = cybn.backward(np.array([[1.0, 0.0]]), cache)

    assert_array_equal(y, [[-4 / 2 + 7, 2 / 2]])
    # dx_hat = dy * gamma; dx = (dx_hat - mean(dx_hat) - x_hat * mean(dx_hat * x_hat)) / std
    assert_array_equal(dx, [[(4 - 2 - 0.5) / 2, (0 - 2 + 0.5) / 2]])
    assert_array_equal(dgamma, [-0.5, 0])
    assert_array_equal(dbeta, [1, 0])


def test_statistics_of_each_row_are_in_the_cache(rng):
    x = rng.normal(3.0, 2.0, (4, 5, 6))
    _, cache = cybn.layer_norm(x)
    assert cache.mean.dtype == np.float64
    assert_allclose(np.ravel(cache.mean), x.mean(axis=-1).ravel(), rtol=1e-14)
    assert_allclose(np.ravel(cache.var), x.var(axis=-1).ravel(), rtol=1e-13)
    assert_allclose(np.ravel(cache.invstd), 1 / np.sqrt(x.var(axis=-1).ravel() + 1e-5), rtol=1e-13)


def test_defaults_are_the_last_axis_and_eps_1e_5(rng):
    x = rng.normal(size=(4, 3, 5))
    explicit, _ = cybn.layer_norm(x, np.ones(5), np.zeros(5), axis=2, eps=1e-5)
    assert_array_equal(cybn.layer_norm(x)[0], explicit)


@pytest.mark.parametrize("axis", [2, -1, (2,), (-1,), np.int64(2)])
def test_names_of_the_last_axis(rng, axis):
    x = rng.normal(size=(4, 3, 5))
    assert_array_equal(cybn.layer_norm(x, axis=axis)[0], cybn.layer_norm(x)[0])


@pytest.mark.parametrize("axis", [(1, 2), (-2, -1), (1, -1)])
def test_several_axes_are_one_long_axis(rng, axis):
    x, dy = rng.normal(size=(2, 4, 3, 5))
    gamma, beta = rng.normal(size=(2, 3, 5))

    y, cache = cybn.layer_norm(x, gamma, beta, axis=axis)
    dx, dgamma, dbeta = cybn.backward(dy, cache)

    flat_y, flat_cache = cybn.layer_norm(x.reshape(4, 15), gamma.ravel(), beta.ravel())
    flat = cybn.backward(dy.reshape(4, 15), flat_cache)
    for actual, expected in zip((y, dx, dgamma, dbeta), (flat_y, *flat), strict=True):
        assert_array_equal(actual, expected.reshape(actual.shape))
    assert dgamma.shape == dbeta.shape == (3, 5)


def test_all_axes(rng):
    x = rng.normal(size=(3, 4))
    y, _ = cybn.layer_norm(x, axis=(0, 1), eps=1e-30)
    assert_allclose(y, (x - x.mean()) / x.std(), rtol=1e-12)


def test_one_dimension_is_one_row(rng):
    x = rng.normal(size=7)
    assert_array_equal(cybn.layer_norm(x)[0], cybn.layer_norm(x[None])[0][0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_parameters_it_is_batch_norm_of_the_transpose(rng, dtype):
    x = rng.normal(2.0, 3.0, (9, 33)).astype(dtype)
    expected, _ = cybn.forward(x, axis=0)
    actual, _ = cybn.layer_norm(x)
    assert_close(actual, expected, 4 * np.finfo(dtype).eps)


def test_rows_do_not_see_each_other(rng):
    x = rng.normal(size=(4, 33)).astype(np.float32)
    before, _ = cybn.layer_norm(x)
    x[2] += 5 * x[2] ** 2
    after, _ = cybn.layer_norm(x)
    assert_array_equal(np.delete(after, 2, axis=0), np.delete(before, 2, axis=0))
    assert not np.array_equal(after[2], before[2])


@pytest.mark.parametrize("shape", [(512, 8192), (256, 200704), (64, 10**6)])
def test_scratch_is_small_beside_x(shape):
    """Of backward: sums of columns, two of 8 bytes for 32 values of 4 or for 1/32768 of x."""
    rows, features = shape
    layout = kernels.Layout(1, 1, rows, features, 1, features, False, True)
    assert 8 * (layout.saved_size + layout.scratch_size) < rows * features * 4 / 3
