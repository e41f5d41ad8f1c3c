"""forward: what it returns, and what it does to the running statistics."""

import numpy as np
import pytest
from cases import DTYPES
from numpy.testing import assert_array_equal

import cybn


def test_by_hand():
    """Mean 2, biased variance 1, unbiased variance 2."""
    x = np.array([[1.0], [3.0]])
    running_mean, running_var = np.array([10.0]), np.array([20.0])

    y, cache = cybn.forward(
        x,
        np.array([5.0]),
        np.array([7.0]),
        running_mean=running_mean,
        running_var=running_var,
        momentum=0.25,
        eps=3.0,
    )

    assert_array_equal(y, [[-5 / 2 + 7], [5 / 2 + 7]])
    assert_array_equal(running_mean, [0.75 * 10 + 0.25 * 2])
    assert_array_equal(running_var, [0.75 * 20 + 0.25 * 2])
    assert_array_equal(cache.mean, [2.0])
    assert_array_equal(cache.var, [1.0])
    assert_array_equal(cache.invstd, [0.5])


def test_inference_by_hand():
    running_mean, running_var = np.array([1.0]), np.array([3.0])

    y, cache = cybn.forward(
        np.array([[7.0]]),
        None,
        None,
        running_mean=running_mean,
        running_var=running_var,
        training=False,
        eps=1.0,
    )

    assert_array_equal(y, [[3.0]])
    assert_array_equal(cache.mean, [1.0])
    assert_array_equal(cache.var, [3.0])
    assert_array_equal(cache.invstd, [0.5])


def test_defaults_are_training_on_axis_1_with_eps_1e_5(rng):
    x = rng.normal(size=(4, 3, 5))
    explicit, _ = cybn.forward(
        x, np.ones(3), np.zeros(3), training=True, momentum=0.1, eps=1e-5, axis=1
    )
    assert_array_equal(cybn.forward(x)[0], explicit)


def test_default_momentum_is_a_tenth():
    running_mean, running_var = np.zeros(1), np.ones(1)
    cybn.forward(
        np.array([[1.0], [3.0]]), None, None, running_mean=running_mean, running_var=running_var
    )
    np.testing.assert_allclose(running_mean, [0.2], rtol=1e-15)
    np.testing.assert_allclose(running_var, [0.9 + 0.2], rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_momentum_0_keeps_the_running_statistics(rng, dtype):
    running_mean, running_var = rng.normal(size=3).astype(dtype), rng.random(3).astype(dtype)
    before = running_mean.copy(), running_var.copy()
    cybn.forward(
        rng.normal(size=(9, 3)),
        None,
        None,
        running_mean=running_mean,
        running_var=running_var,
        momentum=0,
    )
    assert_array_equal((running_mean, running_var), before)


def test_momentum_1_forgets_the_running_statistics(rng):
    running_mean, running_var = rng.normal(size=3), rng.random(3)
    _, cache = cybn.forward(
        rng.normal(size=(9, 3)),
        None,
        None,
        running_mean=running_mean,
        running_var=running_var,
        momentum=1,
    )
    assert_array_equal(running_mean, cache.mean)
    np.testing.assert_allclose(running_var, cache.var * 9 / 8, rtol=1e-15)


def test_inference_leaves_the_running_statistics(rng):
    running_mean, running_var = rng.normal(size=3), rng.random(3)
    before = running_mean.copy(), running_var.copy()
    cybn.forward(
        rng.normal(size=(9, 3)),
        None,
        None,
        running_mean=running_mean,
        running_var=running_var,
        training=False,
        momentum=1,
    )
    assert_array_equal((running_mean, running_var), before)


@pytest.mark.parametrize("training", [True, False])
def test_arguments_are_not_changed(rng, training):
    x, gamma, beta = rng.normal(size=(6, 3, 2)), rng.normal(size=3), rng.normal(size=3)
    before = [array.copy() for array in (x, gamma, beta)]
    y, cache = cybn.forward(
        x, gamma, beta, running_mean=np.zeros(3), running_var=np.ones(3), training=training
    )
    cybn.backward(y, cache)
    for array, copy in zip((x, gamma, beta), before, strict=True):
        assert_array_equal(array, copy)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cache(rng, dtype, training):
    x = rng.normal(size=(6, 3, 2)).astype(dtype)
    _, cache = cybn.forward(
        x,
        None,
        None,
        running_mean=np.zeros(3, dtype),
        running_var=np.ones(3, dtype),
        training=training,
    )
    assert isinstance(cache, cybn.Cache)
    assert np.shares_memory(cache.x, x), "x is referred to, not copied"
    for array in (cache.mean, cache.var, cache.invstd):
        assert array.dtype == np.float64
        assert array.shape == (3,)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (4, 3, 0), (0, 3, 0)])
def test_empty_batch_gives_empty_results_and_touches_nothing(shape, training):
    x = np.empty(shape, np.float32)
    gamma, beta = np.ones(3), np.ones(3, np.float32)
    running_mean, running_var = np.full(3, 5.0), np.full(3, 6.0)

    y, cache = cybn.forward(
        x, gamma, beta, running_mean=running_mean, running_var=running_var, training=training
    )
    dx, dgamma, dbeta = cybn.backward(np.empty(shape, np.float32), cache)

    assert y.shape == dx.shape == shape
    assert y.dtype == dx.dtype == np.float32
    assert_array_equal(running_mean, np.full(3, 5.0))
    assert_array_equal(running_var, np.full(3, 6.0))
    assert_array_equal(dgamma, np.zeros(3))
    assert_array_equal(dbeta, np.zeros(3))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "axis"), [((0,), 0), ((4, 0), 1), ((4, 0, 5), 1)])
def test_no_channels(shape, axis, training):
    none = np.empty(0)
    x = np.empty(shape)
    y, cache = cybn.forward(
        x,
        none,
        none,
        running_mean=none.copy(),
        running_var=none.copy(),
        training=training,
        axis=axis,
    )
    dx, dgamma, dbeta = cybn.backward(y, cache)
    assert y.shape == dx.shape == shape
    assert dgamma.shape == dbeta.shape == (0,)


def test_one_value_a_channel_is_enough_for_inference():
    x = np.array([1.0, 2.0, 3.0])
    y, _ = cybn.forward(
        x,
        None,
        None,
        running_mean=np.zeros(3),
        running_var=np.full(3, 4.0 - 1e-3),
        training=False,
        axis=0,
        eps=1e-3,
    )
    assert_array_equal(y, [0.5, 1.0, 1.5])
