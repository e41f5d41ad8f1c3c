"""Every norm refuses what it cannot work with, names the argument, and changes nothing."""

import numpy as np
import pytest
from checks import refused

import cybn

SHAPE = (4, 6, 5)

# Each function with its arguments beside x; gamma has the shape that is expected.
CALLS = {
    "layer_norm": {"gamma": np.ones(5), "beta": np.ones(5)},
    "rms_norm": {"gamma": np.ones(5)},
    "instance_norm": {"gamma": np.ones(6), "beta": np.ones(6)},
    "group_norm": {"num_groups": 3, "gamma": np.ones(6), "beta": np.ones(6)},
    "weight_standardize": {},
}
CALLS_WITH_GAMMA = [name for name in CALLS if "gamma" in CALLS[name]]
all_functions = pytest.mark.parametrize("name", CALLS)


def floats(*shape):
    return np.ones(shape, np.float32)


def assert_refused(name, error, match, x=None, **spoiled):
    arguments = CALLS[name] | spoiled
    x = floats(*SHAPE) if x is None else x
    arrays = [value for value in (x, *arguments.values()) if isinstance(value, np.ndarray)]
    with refused(error, match, *arrays):
        getattr(cybn, name)(x, **arguments)


@all_functions
def test_good_arguments_are_accepted(name):
    y, cache = getattr(cybn, name)(floats(*SHAPE), **CALLS[name])
    assert np.isfinite(y).all()
    assert np.isfinite(cybn.backward(floats(*SHAPE), cache).dx).all()


@pytest.mark.parametrize("dtype", [np.complex64, object, "U1", "V2", np.longdouble])
@all_functions
def test_x_of_another_type(name, dtype):
    argument = "w" if name == "weight_standardize" else "x"
    assert_refused(name, TypeError, rf"\b{argument}\b", x=np.zeros(SHAPE, dtype))


@all_functions
def test_masked_x(name):
    assert_refused(name, TypeError, "mask", x=np.ma.masked_array(floats(*SHAPE), mask=False))


@all_functions
def test_x_without_dimensions(name):
    assert_refused(name, ValueError, r"\b[xw]\b|\baxis\b", x=np.float32(1))


@pytest.mark.parametrize("name", ["instance_norm", "group_norm"])
def test_x_without_a_channel_axis(name):
    assert_refused(name, ValueError, r"\baxis\b", x=floats(6))


@pytest.mark.parametrize("eps", [0.0, -1e-5, np.nan, np.inf])
@all_functions
def test_eps_that_is_not_finite_and_positive(name, eps):
    assert_refused(name, ValueError, r"\beps\b", eps=eps)


@pytest.mark.parametrize("eps", ["0.1", None, [0.1], 1j])
@all_functions
def test_eps_that_is_no_number(name, eps):
    assert_refused(name, TypeError, r"\beps\b", eps=eps)


@pytest.mark.parametrize("axis", [3, -4, 10**30])
@all_functions
def test_axis_out_of_range(name, axis):
    assert_refused(name, ValueError, r"\baxis\b", axis=axis)


@pytest.mark.parametrize("axis", [1.0, "1", None, [1], np.array([1])])
@all_functions
def test_axis_that_is_no_integer(name, axis):
    assert_refused(name, TypeError, r"\baxis\b", axis=axis)


@pytest.mark.parametrize("axis", [0, -3])
@pytest.mark.parametrize("name", ["instance_norm", "group_norm"])
def test_channel_axis_that_is_the_sample_axis(name, axis):
    assert_refused(name, ValueError, r"\baxis\b", axis=axis, gamma=None, beta=None)


@pytest.mark.parametrize("axis", [(), (0, 1), (0, 2), (1, 1), (2, 1), (2, 2), (1, 3), (-1, -2)])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_axes_that_are_not_the_trailing_ones(name, axis):
    assert_refused(name, ValueError, r"\baxis\b", axis=axis, gamma=None)


@pytest.mark.parametrize("axis", [(1.0, 2), ("1", "2"), (None,)])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_axes_that_are_no_integers(name, axis):
    assert_refused(name, TypeError, r"\baxis\b", axis=axis, gamma=None)


@pytest.mark.parametrize("name", ["instance_norm", "group_norm", "weight_standardize"])
def test_several_axes_where_one_is_wanted(name):
    assert_refused(name, TypeError, r"\baxis\b", axis=(1, 2))


@pytest.mark.parametrize("shape", [(4,), (), (6, 1), (1, 5), (5, 1, 1), (4, 7)])
@pytest.mark.parametrize("name", CALLS_WITH_GAMMA)
def test_parameter_of_another_shape(name, shape):
    parameters = [key for key in ("gamma", "beta") if key in CALLS[name]]
    for parameter in parameters:
        spoiled = dict.fromkeys(parameters) | {parameter: floats(*shape)}
        assert_refused(name, ValueError, rf"\b{parameter}\b", **spoiled)


@pytest.mark.parametrize("dtype", [np.complex64, object, "U1", "V2"])
@pytest.mark.parametrize("name", CALLS_WITH_GAMMA)
def test_gamma_of_another_type(name, dtype):
    shape = CALLS[name]["gamma"].shape
    assert_refused(name, TypeError, r"\bgamma\b", gamma=np.zeros(shape, dtype))


def test_gamma_of_several_axes_has_their_shape():
    gamma = floats(6, 5)
    cybn.layer_norm(floats(*SHAPE), gamma, axis=(1, 2))
    for wrong in (gamma.T, gamma[0], gamma[..., None]):
        assert_refused("layer_norm", ValueError, r"\bgamma\b", axis=(1, 2), gamma=wrong)


@pytest.mark.parametrize("num_groups", [0, -1, 4, 12])
def test_groups_that_do_not_divide_the_channels(num_groups):
    assert_refused("group_norm", ValueError, r"\bnum_groups\b", num_groups=num_groups)


@pytest.mark.parametrize("num_groups", [2.0, "2", None, [2]])
def test_groups_that_are_no_integer(num_groups):
    assert_refused("group_norm", TypeError, r"\bnum_groups\b", num_groups=num_groups)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 6), (6, 4, 5), (120,), ()])
@all_functions
def test_dy_of_another_shape(name, shape):
    _, cache = getattr(cybn, name)(floats(*SHAPE), **CALLS[name])
    dy = floats(*shape)
    with refused(ValueError, r"\bdy\b", dy):
        cybn.backward(dy, cache)


@all_functions
def test_options_are_keywords(name):
    arguments = CALLS[name].copy()
    positional = [arguments.pop(key) for key in list(arguments)]
    with pytest.raises(TypeError, match="positional"):
        getattr(cybn, name)(floats(*SHAPE), *positional, 1)
