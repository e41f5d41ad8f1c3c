"""Every rule of the arguments: the right exception, naming the argument, and nothing changed."""

from fractions import Fraction

import numpy as np
import pytest
from checks import refused

import cybn

SHAPE, CHANNELS = (4, 3, 5), 3


def good_arguments():
    """Arguments of forward that are all accepted (the first test), to spoil one at a time."""
    rng = np.random.default_rng(1)
    return {
        "x": rng.normal(size=SHAPE).astype(np.float32),
        "gamma": rng.normal(size=CHANNELS).astype(np.float32),
        "beta": rng.normal(size=CHANNELS).astype(np.float32),
        "running_mean": np.zeros(CHANNELS, np.float32),
        "running_var": np.ones(CHANNELS, np.float32),
        "training": True,
        "momentum": 0.1,
        "eps": 1e-5,
        "axis": 1,
        "out": np.zeros(SHAPE, np.float32),
    }


def arrays_in(arguments):
    return [value for value in arguments.values() if isinstance(value, np.ndarray)]


def assert_forward_refuses(error, match, **spoiled):
    arguments = good_arguments() | spoiled
    with refused(error, match, *arrays_in(arguments)):
        cybn.forward(**arguments)


def read_only(array):
    array.flags.writeable = False
    return array


def masked(shape):
    return np.ma.masked_array(np.ones(shape, np.float32), mask=False)


def floats(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


@pytest.mark.parametrize("training", [True, False])
def test_good_arguments_are_accepted(training):
    arguments = good_arguments() | {"training": training}
    y, cache = cybn.forward(**arguments)
    assert np.isfinite(y).all()
    assert np.isfinite(cybn.backward(y.copy(), cache).dx).all()


NOT_REAL_NUMBERS = {
    "complex": np.ones(SHAPE, np.complex64),
    "object": np.ones(SHAPE, object),
    "text": np.full(SHAPE, "1"),
    "bytes": np.full(SHAPE, b"1"),
    "dates": np.zeros(SHAPE, "datetime64[s]"),
    "durations": np.zeros(SHAPE, "timedelta64[s]"),
    "records": np.zeros(SHAPE, [("a", "f4"), ("b", "f4")]),
    "two bytes": np.zeros(SHAPE, "V2"),
    "longdouble": np.ones(SHAPE, np.longdouble),
    "masked": masked(SHAPE),
    "None": None,
    "a word": "word",
    "list of text": [["a"], ["b"]],
    "list of None": [[None], [None]],
    "dict": {},
}
not_real_numbers = pytest.mark.parametrize("value", NOT_REAL_NUMBERS.values(), ids=NOT_REAL_NUMBERS)


@not_real_numbers
def test_x_that_is_no_array_of_real_numbers(value):
    assert_forward_refuses(TypeError, r"\bx\b", x=value, out=None)


@not_real_numbers
def test_dy_that_is_no_array_of_real_numbers(value):
    x = floats(*SHAPE)
    _, cache = cybn.forward(x)
    with refused(TypeError, r"\bdy\b", x):
        cybn.backward(value, cache)


def test_ragged_x():
    assert_forward_refuses(ValueError, r"\bx\b", x=[[1.0, 2.0], [3.0]], out=None)


@pytest.mark.parametrize("value", [1.0, np.float32(1), np.array(1.0)])
def test_x_without_dimensions(value):
    assert_forward_refuses(ValueError, r"\bx\b", x=value, out=None)


def test_one_row_or_one_column():
    """An array of one dimension, with the default axis 1."""
    row = floats(3)
    for norm in cybn.batch_norm, cybn.BatchNorm(3), cybn.moments:
        with pytest.raises(
            ValueError, match=r"axis: .* shape \(3,\), got 1; use x\[None\] for one"
        ):
            norm(row)


def test_gradient_and_cache_in_the_wrong_order():
    dy, cache = cybn.batch_norm(floats(4, 3))
    with pytest.raises(TypeError, match=r"cache: .* got ndarray; use \(dy, cache\)"):
        cybn.backward(cache, dy)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (3, 1), (3,)])
def test_one_value_a_channel_in_training(shape):
    axis = 0 if shape[0] == 3 else 1
    assert_forward_refuses(ValueError, r"\bx\b", x=floats(*shape), axis=axis, out=None)


@pytest.mark.parametrize("axis", [3, -4, 10**30, -(10**30)])
def test_axis_out_of_range(axis):
    assert_forward_refuses(ValueError, r"\baxis\b", axis=axis)


def test_default_axis_with_one_dimension():
    with refused(ValueError, r"\baxis\b"):
        cybn.forward(floats(5))


@pytest.mark.parametrize("axis", [1.0, "1", None, [1], np.array([1])])
def test_axis_that_is_no_integer(axis):
    assert_forward_refuses(TypeError, r"\baxis\b", axis=axis)


@pytest.mark.parametrize(
    "eps",
    [
        *(0.0, 0, -1e-5, np.nan, np.inf, -np.inf),
        pytest.param(10**400, id="more than a float can hold"),
        pytest.param(Fraction(1, 10**400), id="less than a float can hold"),
    ],
)
def test_eps_that_is_not_finite_and_positive(eps):
    assert_forward_refuses(ValueError, r"\beps\b", eps=eps)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, np.nan, np.inf, 10])
def test_momentum_outside_of_0_to_1(momentum):
    assert_forward_refuses(ValueError, r"\bmomentum\b", momentum=momentum)


@pytest.mark.parametrize("name", ["eps", "momentum"])
@pytest.mark.parametrize("value", ["0.1", None, [0.1], 1j, np.array([0.1, 0.2])])
def test_eps_and_momentum_that_are_no_numbers(name, value):
    assert_forward_refuses(TypeError, rf"\b{name}\b", **{name: value})


VECTORS = ["gamma", "beta", "running_mean", "running_var"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2,), (4,), (0,), (), (CHANNELS, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("name", VECTORS)
def test_parameter_of_another_shape(name, shape, training):
    assert_forward_refuses(ValueError, rf"\b{name}\b", **{name: floats(*shape)}, training=training)


@pytest.mark.parametrize("name", VECTORS)
def test_message_about_a_shape_has_both_shapes(name):
    message = rf"\b{name}\b(?=.*\(3,\))(?=.*\(4,\))"
    assert_forward_refuses(ValueError, message, **{name: floats(4)})


@pytest.mark.parametrize("dtype", [np.complex64, object, "U1", np.longdouble, "datetime64[s]"])
@pytest.mark.parametrize("name", VECTORS)
def test_parameter_of_a_wrong_dtype(name, dtype):
    assert_forward_refuses(TypeError, rf"\b{name}\b", **{name: np.zeros(CHANNELS, dtype)})


@pytest.mark.parametrize("name", VECTORS)
def test_masked_parameter(name):
    assert_forward_refuses(TypeError, rf"\b{name}\b", **{name: masked(CHANNELS)})


RUNNING = ["running_mean", "running_var"]


@pytest.mark.parametrize("value", [[0.0, 0.0, 0.0], (0.0, 0.0, 0.0), 0.0, "running"])
@pytest.mark.parametrize("name", RUNNING)
def test_running_array_that_is_no_array(name, value):
    assert_forward_refuses(TypeError, rf"\b{name}\b", **{name: value})


@pytest.mark.parametrize("dtype", [np.int64, bool, "V2"])
@pytest.mark.parametrize("name", RUNNING)
def test_running_array_that_is_no_float_array(name, dtype):
    assert_forward_refuses(TypeError, rf"\b{name}\b", **{name: np.ones(CHANNELS, dtype)})


@pytest.mark.parametrize("name", RUNNING)
def test_read_only_running_array(name):
    value = read_only(floats(CHANNELS))
    assert_forward_refuses(ValueError, rf"\b{name}\b", **{name: value})


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", RUNNING)
def test_one_running_array_without_the_other(name, training):
    other = RUNNING[1 - RUNNING.index(name)]
    assert_forward_refuses(ValueError, rf"\b{other}\b", **{other: None}, training=training)


def test_inference_without_running_arrays():
    assert_forward_refuses(
        ValueError, r"\brunning_mean\b", running_mean=None, running_var=None, training=False
    )


def test_the_same_array_for_both_running_statistics():
    same = floats(CHANNELS)
    views = np.ones(2 * CHANNELS, np.float32)
    for mean, var in [(same, same), (same, same[::-1]), (views[:3], views[2:5])]:
        assert_forward_refuses(ValueError, r"\brunning_", running_mean=mean, running_var=var)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 6), (3, 4, 5), (4, 3, 5, 1), (60,), ()])
def test_out_of_another_shape(shape, training):
    assert_forward_refuses(ValueError, r"\bout\b", out=floats(*shape), training=training)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, ">f4", object])
def test_out_of_another_dtype(dtype):
    assert_forward_refuses(TypeError, r"\bout\b", out=np.ones(SHAPE, dtype))


@pytest.mark.parametrize("value", [[[1.0]], 1.0, "out", memoryview(floats(*SHAPE)), masked(SHAPE)])
def test_out_that_is_no_array(value):
    assert_forward_refuses(TypeError, r"\bout\b", out=value)


BAD_OUTS = {
    "read-only": read_only(floats(*SHAPE)),
    "Fortran": np.asfortranarray(floats(*SHAPE)),
    "sliced": floats(4, 3, 10)[..., ::2],
    "reversed": floats(*SHAPE)[::-1],
    "broadcast": np.broadcast_to(np.float32(0), SHAPE),
    "unaligned": np.frombuffer(bytearray(241), np.float32, 60, offset=1).reshape(SHAPE),
}
bad_outs = pytest.mark.parametrize("out", BAD_OUTS.values(), ids=BAD_OUTS)


@bad_outs
def test_out_that_cannot_be_written_in_order(out):
    assert_forward_refuses(ValueError, r"\bout\b", out=out)


@pytest.mark.parametrize("training", [True, False])
def test_out_that_overlaps_x(training):
    buffer = np.zeros(100, np.float32)
    x, out = buffer[:60].reshape(SHAPE), buffer[40:].reshape(SHAPE)
    assert_forward_refuses(ValueError, r"\bout\b", x=x, out=out, training=training)
    backwards = out[::-1, ::-1, ::-1]
    assert_forward_refuses(ValueError, r"\bout\b", x=backwards, out=out, training=training)


def test_running_array_that_overlaps_an_input():
    buffer = np.ones(200, np.float32)
    inputs = {"x": buffer[:60].reshape(SHAPE), "gamma": buffer[60:63], "beta": buffer[63:66]}
    for name in RUNNING:
        for start in (59, 61, 65):
            overlapping = {name: buffer[start : start + CHANNELS]}
            assert_forward_refuses(ValueError, rf"\b{name}\b", **inputs, **overlapping)


@pytest.mark.parametrize("training", [True, False])
def test_out_that_overlaps_x_seen_through_another_object(training):
    """The memory counts, not the object."""
    x = good_arguments()["x"]
    view = memoryview(x)
    with refused(ValueError, r"\bout\b", x):
        cybn.forward(
            view,
            None,
            None,
            running_mean=np.zeros(3),
            running_var=np.ones(3),
            training=training,
            out=x,
        )


def test_backward_into_out_that_overlaps_dy_seen_through_another_object(backward_arguments):
    x, cache = backward_arguments
    buffer = np.arange(100, dtype=np.float32)
    dy, out = buffer[:60].reshape(SHAPE), buffer[40:].reshape(SHAPE)
    with refused(ValueError, r"\bout\b", x, buffer):
        cybn.backward(memoryview(dy), cache, out=out)


def test_training_with_out_being_x():
    x = good_arguments()["x"]
    assert_forward_refuses(ValueError, r"\bout\b", x=x, out=x)


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("training", [True, False])
def test_out_that_overlaps_a_parameter(name, training):
    out = np.ones(SHAPE, np.float32)
    value = out.reshape(-1)[7 : 7 + CHANNELS]
    assert_forward_refuses(
        ValueError, rf"\bout\b|\b{name}\b", out=out, **{name: value}, training=training
    )


@pytest.fixture
def backward_arguments():
    arguments = good_arguments()
    _, cache = cybn.forward(arguments["x"], arguments["gamma"], arguments["beta"])
    return arguments["x"], cache


@pytest.mark.parametrize("cache", [None, 1, "cache", (), {}, floats(*SHAPE)])
def test_cache_that_is_none(cache):
    dy = floats(*SHAPE)
    with refused(TypeError, r"\bcache\b", dy):
        cybn.backward(dy, cache)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 6), (3, 4, 5), (4, 3, 5, 1), (60,), (), (1,)])
def test_dy_of_another_shape(backward_arguments, shape):
    x, cache = backward_arguments
    with refused(ValueError, r"\bdy\b", x):
        cybn.backward(floats(*shape), cache)


@bad_outs
def test_backward_into_out_that_cannot_be_written_in_order(backward_arguments, out):
    x, cache = backward_arguments
    with refused(ValueError, r"\bout\b", x, out):
        cybn.backward(floats(*SHAPE), cache, out=out)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, ">f4"])
def test_backward_into_out_of_another_dtype(backward_arguments, dtype):
    x, cache = backward_arguments
    out = np.ones(SHAPE, dtype)
    with refused(TypeError, r"\bout\b", x, out):
        cybn.backward(floats(*SHAPE), cache, out=out)


def test_backward_into_out_of_another_shape(backward_arguments):
    x, cache = backward_arguments
    out = floats(60)
    with refused(ValueError, r"\bout\b", x, out):
        cybn.backward(floats(*SHAPE), cache, out=out)


def test_backward_into_x(backward_arguments):
    x, cache = backward_arguments
    with refused(ValueError, r"\bout\b", x):
        cybn.backward(floats(*SHAPE), cache, out=x)


def test_backward_into_part_of_dy(backward_arguments):
    x, cache = backward_arguments
    buffer = np.arange(100, dtype=np.float32)
    dy, out = buffer[:60].reshape(SHAPE), buffer[40:].reshape(SHAPE)
    with refused(ValueError, r"\bout\b", x, buffer):
        cybn.backward(dy, cache, out=out)


@pytest.mark.parametrize("arguments", [(), (1, 2, 3, 4)])
def test_wrong_number_of_positional_arguments(arguments):
    with pytest.raises(TypeError, match="argument"):
        cybn.forward(*arguments)


def test_unknown_keyword():
    with pytest.raises(TypeError, match="epsilon"):
        cybn.forward(floats(*SHAPE), epsilon=1e-5)
