"""backward: which gradients there are, from which caches, and identities they must satisfy."""

import numpy as np
import pytest
from cases import DTYPES, make_case
from numpy.testing import assert_allclose, assert_array_equal

import cybn


def test_by_hand():
    """x_hat = -1/2, 1/2 with invstd = 1/2 (see test_forward); dy = 1, 2."""
    x = np.array([[1.0], [3.0]])
    _, cache = cybn.forward(x, np.array([4.0]), np.array([7.0]), eps=3.0)

    gradients = cybn.backward(np.array([[1.0], [2.0]]), cache)

    assert isinstance(gradients, cybn.Gradients)
    # dx = gamma * invstd * (dy - mean(dy) - x_hat * mean(dy * x_hat))
    assert_array_equal(gradients.dx, [[2 * (-0.5 + 0.5 / 4)], [2 * (0.5 - 0.5 / 4)]])
    assert_array_equal(gradients.dgamma, [0.5])
    assert_array_equal(gradients.dbeta, [3.0])


def test_inference_by_hand():
    """The statistics are constants: dx = gamma * invstd * dy."""
    _, cache = cybn.forward(
        np.array([[1.0], [3.0]]),
        np.array([4.0]),
        np.array([0.0]),
        running_mean=np.array([2.0]),
        running_var=np.array([1.0]),
        training=False,
        eps=3.0,
    )
    dx, dgamma, dbeta = cybn.backward(np.array([[1.0], [2.0]]), cache)
    assert_array_equal(dx, [[2.0], [4.0]])
    assert_array_equal(dgamma, [0.5])
    assert_array_equal(dbeta, [3.0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gamma", [None, np.ones(3), np.ones(3, np.float32)])
@pytest.mark.parametrize("beta", [None, np.zeros(3), np.zeros(3, np.float32)])
def test_each_parameter_has_its_gradient(rng, gamma, beta, training):
    x = rng.normal(size=(5, 3))
    _, cache = cybn.forward(
        x, gamma, beta, running_mean=np.zeros(3), running_var=np.ones(3), training=training
    )
    _, dgamma, dbeta = cybn.backward(x, cache)
    for gradient, parameter in ((dgamma, gamma), (dbeta, beta)):
        if parameter is None:
            assert gradient is None
        else:
            assert gradient.shape == (3,)
            assert gradient.dtype == parameter.dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_training_gradient_is_orthogonal_to_ones_and_x_hat(rng, dtype):
    """Shifting or stretching x changes nothing, so dx has no part in either direction."""
    case = make_case(rng, (7, 5, 11), 1, dtype, mean=2.0, eps=1e-30)
    _, cache = cybn.forward(case.x, case.gamma, case.beta, eps=1e-30)
    dx = cybn.backward(case.dy, cache).dx.astype(np.float64)
    x_hat, _ = cybn.forward(case.x.astype(np.float64), eps=1e-30)
    # 77 values, each off by a few ulps.
    tolerance = 77 * 4 * np.finfo(dtype).eps * np.abs(dx).max()
    assert_allclose(dx.sum(axis=(0, 2)), np.zeros(5), atol=tolerance)
    assert_allclose((dx * x_hat).sum(axis=(0, 2)), np.zeros(5), atol=tolerance)


def test_constant_channel(rng):
    """x_hat is 0 and invstd 1 / sqrt(eps): finite gradients, dgamma exactly 0."""
    x = np.full((8, 2), 100.1, np.float32)
    dy = rng.integers(-4, 5, (8, 2)).astype(np.float32)
    _, cache = cybn.forward(x, np.ones(2), np.ones(2), eps=0.25)
    dx, dgamma, dbeta = cybn.backward(dy, cache)
    assert_array_equal(dx, 2 * (dy - dy.mean(axis=0)))
    assert_array_equal(dgamma, [0, 0])
    assert_array_equal(dbeta, dy.sum(axis=0))


@pytest.mark.parametrize("training", [True, False])
def test_cache_can_be_used_again(rng, training):
    x, dy = rng.normal(size=(2, 5, 3))
    _, cache = cybn.forward(
        x,
        np.ones(3),
        np.ones(3),
        running_mean=np.zeros(3),
        running_var=np.ones(3),
        training=training,
    )
    first, second = cybn.backward(dy, cache), cybn.backward(dy, cache)
    for one, other in zip(first, second, strict=True):
        assert_array_equal(one, other)


def test_cache_of_inference_outlives_the_running_statistics(rng):
    """Its statistics are those of its own call, not those that later training leaves behind."""
    x, dy = rng.normal(size=(2, 5, 3))
    running_mean, running_var = np.zeros(3), np.ones(3)
    _, cache = cybn.forward(
        x, np.ones(3), None, running_mean=running_mean, running_var=running_var, training=False
    )
    before = cybn.backward(dy, cache)
    mean, var = cache.mean.copy(), cache.var.copy()
    cybn.forward(x + 10, None, None, running_mean=running_mean, running_var=running_var)
    after = cybn.backward(dy, cache)
    assert_array_equal(after.dx, before.dx)
    assert_array_equal(after.dgamma, before.dgamma)
    assert_array_equal(cache.mean, mean)
    assert_array_equal(cache.var, var)


def test_gradients_are_fresh(rng):
    x = rng.normal(size=(5, 3))
    y, cache = cybn.forward(x, np.ones(3), np.ones(3))
    dx = cybn.backward(x, cache).dx
    assert not np.shares_memory(dx, x)
    assert not np.shares_memory(dx, y)


@pytest.mark.parametrize(
    ("shape", "axis"), [((64, 96), 1), ((8, 3, 40, 40), 1), ((50, 7, 7, 5), -1)]
)
def test_dy_that_is_x_itself(rng, shape, axis):
    """Two inputs at one address: a kernel must not take them for the forward case."""
    x = rng.normal(size=shape)
    gamma = rng.normal(size=shape[axis])
    _, cache = cybn.forward(x, gamma, gamma, axis=axis)
    for one, other in zip(cybn.backward(x, cache), cybn.backward(x.copy(), cache), strict=True):
        assert_array_equal(one, other)
