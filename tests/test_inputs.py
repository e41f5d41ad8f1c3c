"""Anything NumPy can read is converted: the right answer whatever the type or the memory layout.

"Right" is the very bits that a plain, C-ordered, native array of the same values gives.
"""

import numpy as np
import pytest
from cases import DTYPES, make_case, tracked
from layouts import all_layouts, read_only
from numpy.testing import assert_array_equal

import cybn

both_modes = pytest.mark.parametrize("training", [True, False])


def run(x, dy, gamma, beta, running_mean, running_var, **options):
    """forward and backward; everything they return or write, in a list."""
    y, cache = cybn.forward(
        x, gamma, beta, running_mean=running_mean, running_var=running_var, **options
    )
    return [y, *cybn.backward(dy, cache), running_mean, running_var]


def arguments_of(case):
    return [case.x, case.dy, case.gamma, case.beta, case.running_mean, case.running_var]


@both_modes
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, -1])
@all_layouts
def test_layouts_of_x_and_dy(rng, layout, axis, dtype, training):
    case = make_case(rng, (4, 3, 5), axis, dtype, training=training)
    x, dy, *parameters = arguments_of(case)
    copies = [array.copy() for array in parameters]
    given = layout(x), layout(dy)

    expected = run(x, dy, *parameters, **case.options)
    actual = run(*given, *copies, **case.options)

    for one, other in zip(actual, expected, strict=True):
        assert_array_equal(one, other)
        assert one.dtype == other.dtype
    for array in actual[:2]:
        assert type(array) is np.ndarray
        assert array.flags.c_contiguous
        assert array.dtype.isnative
    assert_array_equal(given[0], x)


@both_modes
@pytest.mark.parametrize("dtype", DTYPES)
@all_layouts
def test_layouts_of_parameters(rng, layout, dtype, training):
    """The running arrays are written to where they are, whatever their strides."""
    case = make_case(rng, (4, 7), 1, dtype, training=training)
    x, dy, *parameters = arguments_of(case)
    given = [layout(array) for array in parameters]
    if layout is read_only:
        given[2:] = [array.copy() for array in parameters[2:]]

    expected = run(x, dy, *parameters, **case.options)
    actual = run(x, dy, *given, **case.options)

    for one, other in zip(actual, expected, strict=True):
        assert_array_equal(one, other)


def test_broadcast_x_and_dy(rng):
    x = np.broadcast_to(rng.normal(size=(4, 1, 5)), (4, 3, 5))
    dy = np.broadcast_to(rng.normal(size=(3, 1)), (4, 3, 5))
    y, cache = cybn.forward(x)
    plain_y, plain_cache = cybn.forward(x.copy())
    assert_array_equal(y, plain_y)
    assert_array_equal(cybn.backward(dy, cache).dx, cybn.backward(dy.copy(), plain_cache).dx)


def test_broadcast_gamma_and_beta(rng):
    x = rng.normal(size=(4, 3))
    half = np.broadcast_to(0.5, 3)
    y, _ = cybn.forward(x, half, half)
    assert_array_equal(y, cybn.forward(x, half.copy(), half.copy())[0])


@pytest.mark.parametrize("name", ["?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", ">i2"])
def test_integers_and_bool_become_the_float_numpy_would_choose(rng, name):
    """float32 where it holds every value of the type, else float64."""
    x = rng.integers(0, 2 if name == "?" else 100, (6, 3)).astype(name)
    dtype = np.result_type(x, np.float32)

    y, cache = cybn.forward(x)
    dx, _, _ = cybn.backward(x, cache)

    plain_y, plain_cache = cybn.forward(x.astype(dtype))
    assert y.dtype == dx.dtype == dtype
    assert_array_equal(y, plain_y)
    assert_array_equal(dx, cybn.backward(x.astype(dtype), plain_cache).dx)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", "<f8"])
def test_both_byte_orders_give_native_results(rng, dtype):
    x = rng.normal(size=(6, 3)).astype(dtype)
    y, cache = cybn.forward(x)
    dx, _, _ = cybn.backward(x, cache)
    assert y.dtype == dx.dtype == np.dtype(dtype).newbyteorder("=")
    assert y.dtype.isnative


@pytest.mark.parametrize("convert", [list, tuple, np.ndarray.tolist, memoryview])
def test_sequences_are_read_as_numpy_reads_them(rng, convert):
    x, dy = rng.normal(size=(2, 4, 3))
    gamma, beta = rng.normal(size=(2, 3))

    y, cache = cybn.forward(convert(x), convert(gamma), convert(beta))
    gradients = cybn.backward(convert(dy), cache)

    plain_y, plain_cache = cybn.forward(x, gamma, beta)
    assert y.dtype == np.float64
    assert_array_equal(y, plain_y)
    for one, other in zip(gradients, cybn.backward(dy, plain_cache), strict=True):
        assert_array_equal(one, other)


def test_lists_of_integers_and_bool():
    assert cybn.forward([[1], [3]])[0].dtype == np.float64
    assert cybn.forward([[True], [False]])[0].dtype == np.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_dy_of_the_other_float_type(rng, dtype):
    other = np.float64 if dtype == np.float32 else np.float32
    x = rng.normal(size=(6, 3)).astype(dtype)
    dy = rng.integers(-3, 4, (6, 3)).astype(dtype)  # the same values in either type
    _, cache = cybn.forward(x, np.ones(3), np.ones(3))

    actual = cybn.backward(dy.astype(other), cache)

    assert actual.dx.dtype == dtype
    for one, expected in zip(actual, cybn.backward(dy, cache), strict=True):
        assert_array_equal(one, expected)


@pytest.mark.parametrize("axis", [0, -1])
def test_one_dimension_is_one_value_a_channel(axis):
    x = np.array([1.0, 2.0, 3.0], np.float32)
    y, cache = cybn.forward(
        x,
        None,
        None,
        running_mean=np.ones(3),
        running_var=np.full(3, 3.0),
        training=False,
        axis=axis,
        eps=1.0,
    )
    assert_array_equal(y, np.array([0.0, 0.5, 1.0], np.float32))
    assert_array_equal(cybn.backward(x, cache).dx, x / 2)


def test_negative_axis_counts_from_the_end(rng):
    x = rng.normal(size=(2, 3, 4, 5))
    for axis in range(-4, 0):
        assert_array_equal(cybn.forward(x, axis=axis)[0], cybn.forward(x, axis=axis + 4)[0])


@pytest.mark.parametrize("integer", [np.int8, np.int64, np.uint16])
def test_numpy_scalars_as_options(rng, integer):
    x = rng.normal(size=(4, 3))
    y, _ = cybn.forward(
        x, axis=integer(1), eps=np.float32(0.5), momentum=np.float64(0.5), training=np.True_
    )
    assert_array_equal(y, cybn.forward(x, eps=0.5)[0])


def test_high_rank(rng):
    """More dimensions than any framework takes."""
    x = rng.normal(size=(2, 1, 3, 2, 1, 2, 1, 2, 2))
    y, _ = cybn.forward(x, axis=2)
    assert_array_equal(y, cybn.forward(x.reshape(2, 3, 16), axis=1)[0].reshape(x.shape))


@pytest.mark.parametrize("state", ["warn", "raise"])
@pytest.mark.parametrize("value", [1e300, 1e-300])
def test_dy_that_float32_cannot_hold(value, state):
    """It is rounded as the kernels round, to infinity or 0, whatever NumPy is told to warn of."""
    running = np.zeros(1), np.ones(1)
    _, cache = cybn.forward(
        np.ones((3, 1), np.float32), None, None, **tracked(running), training=False
    )
    with np.errstate(all=state):
        dx = cybn.backward(np.full((3, 1), value), cache).dx
    assert_array_equal(dx, np.full((3, 1), np.inf if value > 1 else 0))
