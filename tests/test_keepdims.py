"""gamma, beta and running arrays as keepdims leaves them, and of integers: the same results."""

import numpy as np
import pytest
from checks import refused
from numpy.testing import assert_array_equal

import cybn

N, C, H, W = 4, 3, 5, 2
SHAPE = (N, C, H, W)

# The call, the shape of its parameters, and that which keepdims=True leaves.
CALLS = {
    "batch": (cybn.batch_norm, {}, (C,), (1, C, 1, 1)),
    "batch, channels last": (cybn.batch_norm, {"axis": -1}, (W,), (1, 1, 1, W)),
    "batch, two axes": (cybn.batch_norm, {"axis": (1, 2)}, (C, H), (1, C, H, 1)),
    "conditional batch": (cybn.batch_norm, {}, (N, C), (N, C, 1, 1)),
    "conditional batch, last": (cybn.batch_norm, {"axis": 3}, (N, W), (N, 1, 1, W)),
    "layer": (cybn.layer_norm, {}, (W,), (1, 1, 1, W)),
    "layer, two axes": (cybn.layer_norm, {"axis": (2, 3)}, (H, W), (1, 1, H, W)),
    "instance": (cybn.instance_norm, {}, (C,), (1, C, 1, 1)),
    "adaptive instance": (cybn.instance_norm, {}, (N, C), (N, C, 1, 1)),
    "group": (cybn.group_norm, {"num_groups": 1, "axis": 1}, (C,), (1, C, 1, 1)),
}
all_calls = pytest.mark.parametrize(("norm", "options", "flat", "kept"), CALLS.values(), ids=CALLS)


@pytest.fixture
def x(rng):
    return rng.normal(2.0, 3.0, SHAPE).astype(np.float32)


@pytest.fixture
def dy(rng):
    return rng.normal(size=SHAPE).astype(np.float32)


@pytest.mark.parametrize("which", ["both", "gamma", "beta", "gamma alone", "beta alone"])
@all_calls
def test_results_are_the_same_and_gradients_have_the_parameters_shapes(
    rng, x, dy, norm, options, flat, kept, which
):
    parameters = {"gamma": rng.normal(size=flat), "beta": rng.normal(size=flat)}
    if "alone" in which:
        parameters = {which.split()[0]: parameters[which.split()[0]]}
    given = {
        name: value.reshape(kept) if which == "both" or name in which else value
        for name, value in parameters.items()
    }

    y, cache = norm(x, **given, **options)
    gradients = cybn.backward(dy, cache)

    expected_y, cache = norm(x, **parameters, **options)
    expected = cybn.backward(dy, cache)
    assert_array_equal(y, expected_y)
    assert_array_equal(gradients.dx, expected.dx)
    for name in ("gamma", "beta"):
        actual, other = getattr(gradients, f"d{name}"), getattr(expected, f"d{name}")
        if name in given:
            assert actual.shape == given[name].shape
            assert_array_equal(actual, other.reshape(actual.shape))
        else:
            assert actual is None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [False, True])
def test_running_arrays(rng, x, rows, training):
    gamma = rng.normal(size=(N, C) if rows else (C,))
    flat = {"running_mean": rng.normal(size=C), "running_var": rng.uniform(1, 2, C)}
    kept = {name: value.reshape(1, C, 1, 1).copy() for name, value in flat.items()}
    y, _ = cybn.batch_norm(x, gamma, training=training, **kept)
    assert_array_equal(y, cybn.batch_norm(x, gamma, training=training, **flat)[0])
    for name, value in kept.items():
        assert value.shape == (1, C, 1, 1)
        assert_array_equal(value.reshape(-1), flat[name])


def test_a_row_for_one_sample_and_keepdims_of_two_dimensions(rng):
    """Where N is 1, or x has two dimensions, both are (1, C), and mean the same."""
    gamma = rng.normal(size=(1, C))
    for shape in [(N, C), (1, C, H)]:
        x = rng.normal(size=shape)
        y, cache = cybn.batch_norm(x, gamma)
        assert_array_equal(y, cybn.batch_norm(x, gamma[0])[0])
        assert cybn.backward(x, cache).dgamma.shape == (1, C)


def test_empty_batch():
    x = np.empty((0, C, H, W), np.float32)
    _, cache = cybn.batch_norm(x, np.ones((1, C, 1, 1)), np.ones(C))
    gradients = cybn.backward(x, cache)
    assert_array_equal(gradients.dgamma, np.zeros((1, C, 1, 1)))
    assert_array_equal(gradients.dbeta, np.zeros(C))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, ">i4"])
@all_calls
def test_integers_become_the_float_numpy_would_choose(x, dy, norm, options, flat, kept, dtype):
    gamma, beta = (np.arange(np.prod(kept)).reshape(kept) % 2 + i for i in range(2))
    gamma, beta = gamma.astype(dtype), beta.astype(dtype)
    wide = np.result_type(dtype, np.float32)
    y, cache = norm(x, gamma=gamma, beta=beta, **options)
    expected, _ = norm(x, gamma=gamma.astype(wide), beta=beta.astype(wide), **options)
    assert_array_equal(y, expected)
    assert cybn.backward(dy, cache).dgamma.dtype == wide


@pytest.mark.parametrize(
    ("kind", "momentum"), [("BatchNorm", 0.1), ("BatchNorm", None), ("InstanceNorm", 0.1)]
)
def test_layer(x, dy, kind, momentum):
    options = {"momentum": momentum, "affine": True, "track_running_stats": True}
    layer, twin = (getattr(cybn, kind)(C, **options) for _ in range(2))
    for name in ("gamma", "beta", "running_mean", "running_var"):
        setattr(layer, name, getattr(layer, name).reshape(1, C, 1, 1))
    for batch in (x, 2 * x + 1):
        assert_array_equal(layer(batch), twin(batch))
        assert_array_equal(layer.backward(dy), twin.backward(dy))
    for name in ("dgamma", "dbeta", "running_mean", "running_var"):
        assert getattr(layer, name).shape == (1, C, 1, 1)
        assert_array_equal(getattr(layer, name).reshape(-1), getattr(twin, name))
    assert_array_equal(layer.eval()(x), twin.eval()(x))


@pytest.mark.parametrize("shape", [(C, 1, 1), (1, C), (1, C, 1), (1, 1, 1, C), (1, C, 1, 1, 1)])
@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
def test_other_shapes_of_as_many_values(x, name, shape):
    arguments = {key: np.ones(C) for key in ("running_mean", "running_var")}
    arguments[name] = np.ones(shape)
    with refused(ValueError, rf"\b{name}\b.*use {name}.reshape\(3\)|\bgamma|\bbeta", x):
        cybn.batch_norm(x, **arguments)
