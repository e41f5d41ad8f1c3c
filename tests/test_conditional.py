"""Conditional batch norm and adaptive instance norm: gamma and beta with a row for each sample."""

import numpy as np
import pytest
from cases import DTYPES, tracked
from checks import assert_close, refused
from numpy.testing import assert_array_equal

import cybn

both_norms = pytest.mark.parametrize("norm", [cybn.forward, cybn.instance_norm])


def arguments(rng, dtype=np.float64, shape=(4, 3, 5)):
    x, dy = rng.normal(2.0, 3.0, (2, *shape)).astype(dtype)
    gamma, beta = rng.normal(size=(2, *shape[:2])).astype(dtype)
    return x, dy, gamma, beta


def test_by_hand():
    """Mean 2, variance 1, std 2 with eps: x_hat = -1/2, 1/2 for the samples."""
    gamma, beta = np.array([[4.0], [2.0]]), np.array([[7.0], [0.0]])

    y, cache = cybn.forward(np.array([[1.0], [3.0]]), gamma, beta, eps=3.0)
    dx, dgamma, dbeta = cybn.backward(np.array([[1.0], [0.0]]), cache)

    assert_array_equal(y, [[-4 / 2 + 7], [2 / 2]])
    # dx_hat = dy * gamma; dx = (dx_hat - mean(dx_hat) - x_hat * mean(dx_hat * x_hat)) / std
    assert_array_equal(dx, [[(4 - 2 - 0.5) / 2], [(0 - 2 + 0.5) / 2]])
    assert_array_equal(dgamma, [[-0.5], [0]])
    assert_array_equal(dbeta, [[1], [0]])


@pytest.mark.parametrize("dtype", DTYPES)
@both_norms
def test_is_the_norm_then_each_samples_own_scale_and_shift(rng, norm, dtype):
    x, dy, gamma, beta = arguments(rng, dtype)
    y, cache = norm(x, gamma, beta)
    dx, dgamma, dbeta = cybn.backward(dy, cache)

    x_hat, plain_cache = norm(x.astype(np.float64))
    assert_close(y, x_hat * gamma[:, :, None] + beta[:, :, None], 4 * np.finfo(dtype).eps)
    plain_dx = cybn.backward(dy * gamma[:, :, None].astype(np.float64), plain_cache).dx
    assert_close(dx, plain_dx, 4 * np.finfo(dtype).eps)
    assert_close(dgamma, (dy * x_hat).sum(axis=2), 4 * np.finfo(dtype).eps)
    assert_close(dbeta, dy.astype(np.float64).sum(axis=2), 4 * np.finfo(dtype).eps)


@both_norms
def test_equal_rows_are_a_parameter_for_all_samples(rng, norm):
    x, dy, gamma, beta = arguments(rng)
    row_y, row_cache = norm(x, gamma[0], beta[0])
    rows = [np.broadcast_to(parameter[0], parameter.shape) for parameter in (gamma, beta)]
    y, cache = norm(x, *rows)
    row, per_sample = cybn.backward(dy, row_cache), cybn.backward(dy, cache)
    assert_close(y, row_y, 1e-15)
    assert_close(per_sample.dx, row.dx, 1e-14)
    assert_close(per_sample.dgamma.sum(axis=0), row.dgamma, 1e-14)
    assert_close(per_sample.dbeta.sum(axis=0), row.dbeta, 1e-14)


def test_inference(rng):
    x, dy, gamma, beta = arguments(rng)
    running_mean, running_var = rng.normal(size=3), rng.uniform(0.5, 2.0, 3)
    std = np.sqrt(running_var + 1e-5)[:, None]
    x_hat = (x - running_mean[:, None]) / std

    y, cache = cybn.forward(
        x, gamma, beta, running_mean=running_mean, running_var=running_var, training=False
    )
    dx, dgamma, dbeta = cybn.backward(dy, cache)

    assert_close(y, x_hat * gamma[:, :, None] + beta[:, :, None], 1e-14)
    assert_close(dx, dy * gamma[:, :, None] / std, 1e-14)
    assert_close(dgamma, (dy * x_hat).sum(axis=2), 1e-14)
    assert_close(dbeta, dy.sum(axis=2), 1e-14)


def test_running_statistics_are_those_of_the_channels(rng):
    x, _, gamma, beta = arguments(rng)
    running, expected = (np.zeros(3), np.ones(3)), (np.zeros(3), np.ones(3))
    cybn.forward(x, gamma, beta, **tracked(running))
    cybn.forward(x, None, None, **tracked(expected))
    # Sums are kept per sample here, so that they are added in another order.
    for actual, other in zip(running, expected, strict=True):
        assert_close(actual, other, 1e-15)


@pytest.mark.parametrize("axis", [-1, 2])
@both_norms
def test_channels_last(rng, norm, axis):
    x, dy, gamma, beta = arguments(rng)
    y, cache = norm(x, gamma, beta)
    gradients = cybn.backward(dy, cache)
    last_y, last_cache = norm(np.moveaxis(x, 1, axis), gamma, beta, axis=axis)
    last = cybn.backward(np.moveaxis(dy, 1, axis), last_cache)
    assert_close(np.moveaxis(last_y, axis, 1), y, 1e-14)
    assert_close(np.moveaxis(last.dx, axis, 1), gradients.dx, 1e-14)
    assert_close(last.dgamma, gradients.dgamma, 1e-14)
    assert_close(last.dbeta, gradients.dbeta, 1e-14)


@pytest.mark.parametrize("given", ["gamma", "beta"])
@both_norms
def test_one_of_the_two(rng, norm, given):
    x, dy, gamma, beta = arguments(rng)
    both = {"gamma": gamma, "beta": beta}
    neutral = {"gamma": np.ones_like(gamma), "beta": np.zeros_like(beta)}
    y, cache = norm(x, **{given: both[given]})
    expected_y, expected_cache = norm(x, **neutral | {given: both[given]})
    actual, expected = cybn.backward(dy, cache), cybn.backward(dy, expected_cache)
    assert_array_equal(y, expected_y)
    for key in ("dgamma", "dbeta"):
        if key == f"d{given}":
            assert_array_equal(getattr(actual, key), getattr(expected, key))
        else:
            assert getattr(actual, key) is None


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (3, 4), (1, 3), (4, 1), (3, 4, 1)])
@pytest.mark.parametrize("name", ["gamma", "beta"])
@both_norms
def test_parameter_of_another_shape(rng, norm, name, shape):
    x = arguments(rng)[0]
    parameter = np.ones(shape)
    with refused(ValueError, rf"\b{name}\b", x, parameter):
        norm(x, **{name: parameter})


def test_channels_first_have_no_sample_axis(rng):
    x, _, gamma, _ = arguments(rng, shape=(4, 4, 5))
    with refused(ValueError, r"\bgamma\b|\baxis\b", x, gamma):
        cybn.forward(x, gamma, axis=0)
