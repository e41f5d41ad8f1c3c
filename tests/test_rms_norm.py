"""rms_norm by hand, and what it is equal to. Sizes and bounds: test_norm_exact."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cybn


def test_by_hand():
    """The mean square is 10, its root 4 with eps: x_hat = 1/2, 1."""
    y, cache = cybn.rms_norm(np.array([[2.0, 4.0]]), np.array([2.0, 4.0]), eps=6.0)
    dx, dgamma, dbeta = cybn.backward(np.array([[1.0, 0.0]]), cache)

    assert_array_equal(y, [[1, 4]])
    # dx_hat = dy * gamma; dx = (dx_hat - x_hat * mean(dx_hat * x_hat)) / rms
    assert_array_equal(dx, [[(2 - 0.5 * 0.5) / 4, (0 - 1 * 0.5) / 4]])
    assert_array_equal(dgamma, [0.5, 0])
    assert dbeta is None


def test_defaults_are_the_last_axis_and_eps_1e_5(rng):
    x = rng.normal(size=(4, 3, 5))
    explicit, _ = cybn.rms_norm(x, np.ones(5), axis=2, eps=1e-5)
    assert_array_equal(cybn.rms_norm(x)[0], explicit)


@pytest.mark.parametrize("axis", [(1, 2), (-2, -1)])
def test_several_axes_are_one_long_axis(rng, axis):
    x, dy = rng.normal(size=(2, 4, 3, 5))
    gamma = rng.normal(size=(3, 5))

    y, cache = cybn.rms_norm(x, gamma, axis=axis)
    dx, dgamma, _ = cybn.backward(dy, cache)

    flat_y, flat_cache = cybn.rms_norm(x.reshape(4, 15), gamma.ravel())
    flat_dx, flat_dgamma, _ = cybn.backward(dy.reshape(4, 15), flat_cache)
    assert_array_equal(y, flat_y.reshape(4, 3, 5))
    assert_array_equal(dx, flat_dx.reshape(4, 3, 5))
    assert_array_equal(dgamma, flat_dgamma.reshape(3, 5))


def test_is_layer_norm_where_the_mean_is_0(rng):
    """Forward; backward differs, since there the mean depends on x."""
    half = rng.integers(1, 50, (8, 16)).astype(np.float64)
    x = np.concatenate([half, -half], axis=1)
    assert_allclose(cybn.rms_norm(x)[0], cybn.layer_norm(x)[0], rtol=1e-14)


def test_sign_is_kept_and_scale_does_not_matter(rng):
    x = rng.normal(size=(5, 33))
    y, _ = cybn.rms_norm(x, eps=1e-30)
    assert_array_equal(cybn.rms_norm(-8 * x, eps=1e-30)[0], -y)
    assert_allclose(np.mean(y**2, axis=-1), np.ones(5), rtol=1e-14)


def test_row_of_zeros(rng):
    """rms = sqrt(eps): no division by 0."""
    dy = rng.integers(-4, 5, (2, 8)).astype(np.float32)
    y, cache = cybn.rms_norm(np.zeros((2, 8), np.float32), np.ones(8), eps=0.25)
    dx, dgamma, _ = cybn.backward(dy, cache)
    assert_array_equal(y, np.zeros((2, 8)))
    assert_array_equal(dx, 2 * dy)
    assert_array_equal(dgamma, np.zeros(8))


def test_takes_no_beta():
    with pytest.raises(TypeError, match="beta"):
        cybn.rms_norm(np.ones((2, 3)), beta=np.zeros(3))
