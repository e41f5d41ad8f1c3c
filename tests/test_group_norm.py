"""group_norm and instance_norm by hand, and what they are equal to."""

import numpy as np
import pytest
from cases import DTYPES
from checks import assert_close
from numpy.testing import assert_allclose, assert_array_equal

import cybn


def test_group_norm_by_hand():
    """Means 2 and 20, std 2 and sqrt(3) with eps: x_hat = -1/2, 1/2, 0, 0."""
    x = np.array([[1.0, 3.0, 20.0, 20.0]])
    gamma, beta = np.array([4.0, 2.0, 1.0, 1.0]), np.array([7.0, 0.0, 0.0, 5.0])

    y, cache = cybn.group_norm(x, 2, gamma, beta, eps=3.0)
    dx, dgamma, dbeta = cybn.backward(np.array([[1.0, 0.0, 0.0, 1.0]]), cache)

    assert_array_equal(y, [[-4 / 2 + 7, 2 / 2, 0, 5]])
    # dx_hat = dy * gamma; dx = (dx_hat - mean(dx_hat) - x_hat * mean(dx_hat * x_hat)) / std
    assert_array_equal(dx[0, :2], [(4 - 2 - 0.5) / 2, (0 - 2 + 0.5) / 2])
    assert_allclose(dx[0, 2:], [-0.5 / np.sqrt(3), 0.5 / np.sqrt(3)], rtol=1e-15)
    assert_array_equal(dgamma, [-0.5, 0, 0, 0])
    assert_array_equal(dbeta, [1, 0, 0, 1])


def test_instance_norm_by_hand():
    """Each row of two values has statistics of its own; gamma goes by channel."""
    x = np.array([[[1.0, 3.0], [5.0, 5.0]], [[3.0, 1.0], [-1.0, 1.0]]])
    y, cache = cybn.instance_norm(x, np.array([4.0, 2.0]), np.array([7.0, 0.0]), eps=3.0)
    _, dgamma, dbeta = cybn.backward(np.ones_like(x), cache)
    assert_array_equal(y, [[[5, 9], [0, 0]], [[9, 5], [-1, 1]]])
    assert_array_equal(dgamma, [0, 0])
    assert_array_equal(dbeta, [4, 4])


def test_default_axis_is_1(rng):
    x, gamma, beta = rng.normal(size=(4, 6, 5)), rng.normal(size=6), rng.normal(size=6)
    options = {"axis": 1, "eps": 1e-5}
    assert_array_equal(
        cybn.instance_norm(x, gamma, beta)[0], cybn.instance_norm(x, gamma, beta, **options)[0]
    )
    assert_array_equal(
        cybn.group_norm(x, 3, gamma, beta)[0], cybn.group_norm(x, 3, gamma, beta, **options)[0]
    )


def results(call, x, *parameters, **options):
    y, cache = call(x, *parameters, **options)
    return [y, *cybn.backward(np.cos(np.arange(x.size)).reshape(x.shape), cache)]


def assert_all_close(actual, expected):
    """Two ways to the same number may round it differently."""
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, 4 * np.finfo(one.dtype).eps)


@pytest.fixture(params=DTYPES)
def image(request, rng):
    dtype = request.param
    return (
        rng.normal(2.0, 3.0, (3, 6, 5, 7)).astype(dtype),
        *rng.normal(size=(2, 6)).astype(dtype),
    )


def test_a_group_for_each_channel_is_instance_norm(image):
    x, gamma, beta = image
    expected = results(cybn.instance_norm, x, gamma, beta)
    assert_all_close(results(cybn.group_norm, x, 6, gamma, beta), expected)


def test_one_group_is_layer_norm_of_all_but_the_samples(image):
    x = image[0]
    expected = results(cybn.layer_norm, x, axis=(1, 2, 3))[:2]
    assert_all_close(results(cybn.group_norm, x, 1)[:2], expected)


def test_instance_norm_of_one_sample_is_batch_norm(image):
    x, gamma, beta = image
    expected = results(cybn.forward, x[:1], gamma, beta)
    assert_all_close(results(cybn.instance_norm, x[:1], gamma, beta), expected)


@pytest.mark.parametrize("call", [cybn.instance_norm, cybn.group_norm])
@pytest.mark.parametrize("axis", [-1, 3, 2])
def test_channels_on_another_axis(image, rng, call, axis):
    x, *parameters = image
    dy = rng.normal(size=x.shape).astype(x.dtype)
    groups = (3,) if call is cybn.group_norm else ()
    y, cache = call(x, *groups, *parameters)
    dx, dgamma, dbeta = cybn.backward(dy, cache)

    moved_y, cache = call(np.moveaxis(x, 1, axis), *groups, *parameters, axis=axis)
    moved = cybn.backward(np.moveaxis(dy, 1, axis), cache)

    actual = np.moveaxis(moved_y, axis, 1), np.moveaxis(moved.dx, axis, 1), *moved[1:]
    assert_all_close(actual, (y, dx, dgamma, dbeta))


def test_samples_do_not_see_each_other(image):
    x, gamma, beta = image
    calls = [(cybn.instance_norm, ()), (cybn.group_norm, (2,))]
    before = [call(x, *groups, gamma, beta)[0] for call, groups in calls]
    x[1] = x[1] ** 2
    after = [call(x, *groups, gamma, beta)[0] for call, groups in calls]
    for one, other in zip(before, after, strict=True):
        assert_array_equal(one[[0, 2]], other[[0, 2]])
        assert not np.array_equal(one[1], other[1])


@pytest.mark.parametrize("num_groups", [np.int8(3), np.uint64(3)])
def test_number_of_groups_may_be_a_numpy_integer(rng, num_groups):
    x = rng.normal(size=(4, 6, 5))
    assert_array_equal(cybn.group_norm(x, num_groups)[0], cybn.group_norm(x, 3)[0])
