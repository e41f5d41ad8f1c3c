"""out=: the result goes into the caller's array, which may be x (inference) or dy (backward)."""

import numpy as np
import pytest
from cases import DTYPES, make_case, run_cybn, tracked
from checks import refused
from numpy.testing import assert_array_equal

import cybn

both_modes = pytest.mark.parametrize("training", [True, False])


@pytest.fixture(params=DTYPES)
def case(request, rng):
    return make_case(rng, (4, 3, 5), 1, request.param)


def forward(case, x, *, training, out):
    running = case.running_mean.copy(), case.running_var.copy()
    return cybn.forward(x, case.gamma, case.beta, **tracked(running), training=training, out=out)


@both_modes
def test_results_go_into_out(case, training):
    out_y, out_dx = np.full_like(case.x, np.nan), np.full_like(case.x, np.nan)

    y, cache = forward(case, case.x, training=training, out=out_y)
    dx, dgamma, dbeta = cybn.backward(case.dy, cache, out=out_dx)

    expected_y, expected_cache = forward(case, case.x, training=training, out=None)
    expected = cybn.backward(case.dy, expected_cache)
    assert y is out_y
    assert dx is out_dx
    assert_array_equal(y, expected_y)
    for one, other in zip((dx, dgamma, dbeta), expected, strict=True):
        assert_array_equal(one, other)


@both_modes
def test_out_of_backward_may_be_dy(case, training):
    _, cache = forward(case, case.x, training=training, out=None)
    expected = cybn.backward(case.dy, cache)
    dy = case.dy.copy()
    actual = cybn.backward(dy, cache, out=dy)
    assert actual.dx is dy
    for one, other in zip(actual, expected, strict=True):
        assert_array_equal(one, other)


def test_out_of_inference_may_be_x(case):
    expected, _ = forward(case, case.x, training=False, out=None)
    x = case.x.copy()
    y, cache = forward(case, x, training=False, out=x)
    assert y is x
    assert_array_equal(y, expected)
    with refused(ValueError, r"\bcache\b|overwritten", x, case.dy):
        cybn.backward(case.dy, cache)


def test_out_of_training_must_not_be_x(case):
    with refused(ValueError, r"\bout\b", case.x, case.running_mean):
        cybn.forward(
            case.x,
            None,
            None,
            running_mean=case.running_mean,
            running_var=case.running_var,
            out=case.x,
        )


def test_out_has_the_dtype_that_integers_convert_to():
    x = np.array([[1], [3]], np.int16)
    out = np.empty((2, 1), np.float32)
    assert cybn.forward(x, eps=3.0, out=out)[0] is out
    assert_array_equal(out, [[-0.5], [0.5]])


def test_out_where_x_has_to_be_copied(case):
    """The copy is made from x, so x keeps its own values."""
    x = np.asfortranarray(case.x)
    out = np.empty_like(case.x)
    y, _ = forward(case, x, training=True, out=out)
    assert y is out
    assert_array_equal(y, run_cybn(case).y)
    assert_array_equal(x, case.x)


def test_out_beside_x_in_the_same_buffer(case):
    """Neighbours do not overlap."""
    buffer = np.empty((2, *case.x.shape), case.x.dtype)
    buffer[0] = case.x
    y, cache = forward(case, buffer[0], training=True, out=buffer[1])
    assert_array_equal(y, run_cybn(case).y)
    assert_array_equal(buffer[0], case.x)
    dx = cybn.backward(case.dy, cache, out=buffer[1]).dx
    assert_array_equal(dx, run_cybn(case).dx)


def test_nothing_beyond_out_is_written(case):
    buffer = np.full((6, *case.x.shape[1:]), 7.0, case.x.dtype)
    forward(case, case.x, training=True, out=buffer[1:5])
    assert_array_equal(buffer[[0, 5]], np.full_like(buffer[[0, 5]], 7.0))


def test_empty_out():
    out = np.empty((0, 3), np.float32)
    y, cache = cybn.forward(np.empty((0, 3), np.float32), out=out)
    assert y is out
    assert cybn.backward(np.empty((0, 3), np.float32), cache, out=out).dx is out


class Subclass(np.ndarray):
    pass


IN_PLACE = {
    "itself": lambda array, path: (array, array),
    "a view of it": lambda array, path: (array, array[...]),
    "a subclass": lambda array, path: (array.view(Subclass),) * 2,
    "a view as a subclass": lambda array, path: (array, array.view(Subclass)),
    "memory-mapped": lambda array, path: (mapped(array, path),) * 2,
}


def mapped(array, path):
    memory = np.memmap(path / "array", array.dtype, "w+", shape=array.shape)
    memory[...] = array
    return memory


@pytest.mark.parametrize("make", IN_PLACE.values(), ids=IN_PLACE)
class TestInPlace:
    """The memory counts, not the object."""

    def test_inference(self, case, tmp_path, make):
        expected, _ = forward(case, case.x, training=False, out=None)
        x, out = make(case.x.copy(), tmp_path)
        y, cache = forward(case, x, training=False, out=out)
        assert y is out
        assert_array_equal(np.asarray(x), expected)
        assert cache.x is None
        with refused(ValueError, r"\bcache\b", case.dy):
            cybn.backward(case.dy, cache)

    def test_backward(self, case, tmp_path, make):
        _, cache = forward(case, case.x, training=True, out=None)
        expected = cybn.backward(case.dy, cache)
        dy, out = make(case.dy.copy(), tmp_path)
        actual = cybn.backward(dy, cache, out=out)
        assert actual.dx is out
        for one, other in zip(actual, expected, strict=True):
            assert_array_equal(np.asarray(one), other)

    def test_training(self, case, tmp_path, make):
        x, out = make(case.x.copy(), tmp_path)
        with refused(ValueError, r"\bout\b", x):
            forward(case, x, training=True, out=out)


@pytest.mark.parametrize("axis", [1, 2])
def test_transposed_x_is_not_in_place(rng, axis):
    """Of the same shape and memory, but in another order."""
    x = rng.normal(size=(4, 4, 4))
    with refused(ValueError, r"\bout\b", x):
        cybn.forward(x.T, None, None, **tracked(np.ones((2, 4))), training=False, axis=axis, out=x)


def test_out_of_backward_over_the_cache(rng):
    x = rng.normal(size=(2, 65))
    _, cache = cybn.forward(x)
    memory = cache.mean.base if cache.mean.base is not None else cache.mean
    out = memory[: x.size].reshape(x.shape)
    with refused(ValueError, r"\bout\b.*\bcache\b", memory):
        cybn.backward(x, cache, out=out)
