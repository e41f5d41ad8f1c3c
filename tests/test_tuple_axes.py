"""Several adjacent axes as the channels: statistics for each time step and feature, say."""

from collections import namedtuple

import numpy as np
import pytest
from cases import DTYPES, tracked
from checks import assert_close, refused
from numpy.testing import assert_array_equal

import cybn

N, T, F = 6, 4, 3


@pytest.fixture
def x(rng):
    return rng.normal(2.0, 3.0, (N, T, F))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [(1, 2), (-2, -1), (1, -1)])
def test_is_one_axis_of_all_their_places(rng, x, axis, dtype, training):
    x, dy = x.astype(dtype), rng.normal(size=x.shape).astype(dtype)
    parameters = rng.uniform(0.5, 2.0, (4, T, F)).astype(dtype)
    copies = parameters.copy()

    gamma, beta, *running = parameters
    options = tracked(running) | {"training": training}
    y, cache = cybn.forward(x, gamma, beta, axis=axis, **options)
    gradients = cybn.backward(dy, cache)

    flat = copies.reshape(4, T * F)
    gamma, beta, *running = flat
    options |= tracked(running)
    flat_y, flat_cache = cybn.forward(x.reshape(N, T * F), gamma, beta, **options)
    expected = flat_y, *cybn.backward(dy.reshape(N, T * F), flat_cache), *flat
    for actual, other in zip((y, *gradients, *parameters), expected, strict=True):
        assert_close(actual, other.reshape(actual.shape), 4 * np.finfo(dtype).eps)
    assert gradients.dgamma.shape == gradients.dbeta.shape == (T, F)


class Axis:
    """What NumPy takes for an int."""

    def __init__(self, axis):
        self.axis = axis

    def __index__(self):
        return self.axis


@pytest.mark.parametrize("masked", [False, True])
def test_axes_are_all_that_is_an_int_or_a_tuple_of_ints(x, masked):
    where = x[..., :1] > 1 if masked else None
    one, _ = cybn.forward(x, axis=2, where=where)
    assert_array_equal(cybn.forward(x, axis=Axis(2), where=where)[0], one)
    assert_array_equal(cybn.forward(x, axis=(np.int64(-1),), where=where)[0], one)
    pair = namedtuple("Pair", "time feature")(Axis(1), 2)
    two, _ = cybn.forward(x, axis=(1, 2), where=where)
    assert_array_equal(cybn.forward(x, axis=pair, where=where)[0], two)


def test_axis_2_pools_over_time(rng, x):
    y, _ = cybn.forward(x, axis=2)
    assert_close(y.reshape(N * T, F), cybn.forward(x.reshape(N * T, F))[0], 1e-14)


def test_first_axes(rng):
    """A statistic for each step of each sample, over its features."""
    x = rng.normal(2.0, 3.0, (2, 5, 33))
    y, _ = cybn.forward(x, axis=(0, 1))
    assert_close(y, cybn.layer_norm(x)[0], 1e-14)


def test_all_axes_in_inference(x):
    """One value a channel."""
    mean, var = np.full((N, T, F), 2.0), np.full((N, T, F), 3.0)
    y, _ = cybn.forward(
        x, None, None, running_mean=mean, running_var=var, training=False, eps=1.0, axis=(0, 1, 2)
    )
    assert_array_equal(y, (x - 2) / 2)


def test_all_axes_in_training(x):
    with refused(ValueError, r"\bx\b", x):
        cybn.forward(x, axis=(0, 1, 2))


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_tuple_of_one_axis(x, axis):
    assert_array_equal(cybn.forward(x, axis=(axis,))[0], cybn.forward(x, axis=axis)[0])


@pytest.mark.parametrize(
    "axis", [(), (0, 2), (2, 1), (1, 1), (1, -2), (2, 3), (-4, -3), (-1, 0), (10**30,)]
)
@pytest.mark.parametrize("function", [cybn.forward, cybn.moments])
def test_axes_that_are_not_adjacent_and_in_order(x, function, axis):
    with refused(ValueError, r"\baxis\b", x):
        function(x, axis=axis)


@pytest.mark.parametrize("axis", [[1, 2], (1.0, 2), ("1", "2"), (None,), ((1, 2),), {1, 2}])
@pytest.mark.parametrize("function", [cybn.forward, cybn.moments])
def test_axes_that_are_no_tuple_of_integers(x, function, axis):
    with refused(TypeError, r"\baxis\b", x):
        function(x, axis=axis)


@pytest.mark.parametrize("shape", [(T * F,), (F,), (F, T), (T, F, 1), (1, F), (2, T, F)])
@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
def test_parameter_of_another_shape(x, name, shape):
    arguments = {key: np.ones((T, F)) for key in ("running_mean", "running_var")}
    arguments[name] = np.ones(shape)
    with refused(ValueError, rf"\b{name}\b", x, *arguments.values()):
        cybn.forward(x, axis=(1, 2), **arguments)


@pytest.mark.parametrize("shape", [(0, T, F), (N, 0, F), (N, T, 0)])
def test_empty_batch_touches_nothing(shape):
    running = np.full(shape[1:], 5.0), np.full(shape[1:], 6.0)
    y, cache = cybn.forward(np.empty(shape), None, None, **tracked(running), axis=(1, 2))
    assert y.shape == cybn.backward(y, cache).dx.shape == shape
    assert_array_equal(running[0], np.full(shape[1:], 5.0))
    assert_array_equal(running[1], np.full(shape[1:], 6.0))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
def test_flat_parameter_alone(x, name, training):
    """Nothing else is of a shape that would have to be looked at."""
    arguments = {key: np.ones((T, F)) for key in ("running_mean", "running_var")}
    if name in arguments:
        arguments = {key: np.ones(T * F) for key in arguments}
    arguments[name] = np.ones(T * F)
    with refused(ValueError, rf"\b{name}\b|running_mean", x, *arguments.values()):
        cybn.forward(x, axis=(1, 2), training=training, **arguments)
    if name in ("gamma", "beta"):
        with refused(ValueError, rf"\b{name}\b", x):
            cybn.forward(x, axis=(1, 2), **{name: np.ones(T * F)})


@pytest.mark.parametrize("name", ["gamma", "beta"])
def test_flat_parameter_of_layer_norm(x, name):
    with refused(ValueError, rf"\b{name}\b", x):
        cybn.layer_norm(x, axis=(1, 2), **{name: np.ones(T * F)})
