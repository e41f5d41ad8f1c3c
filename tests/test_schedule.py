"""How a call is run changes no bit: threads, streaming stores, whole tiles or shared ones.

Normally the size of a call decides that. Here small ones, with tails of every kind, are run in
every way; `test_bits` has the large ones.
"""

from itertools import product

import numpy as np
import pytest
from cases import DTYPES, MEMORY, SHAPES, make_case, run_cybn, tracked
from norms import SHAPES as NORM_SHAPES
from norms import make_norm_case
from norms import run_cybn as run_norm
from numpy.testing import assert_array_equal
from ways import force_schedule

import cybn

STREAM, CACHE_SIZE, THREADS = [False, True], [0, 1 << 40], [1, 2, 5]


@pytest.fixture
def schedule(monkeypatch):
    """A function that makes all calls of this test run in the given way; it counts them."""
    calls = []

    def force(*way):
        force_schedule(monkeypatch, lambda nbytes: calls.append(way) or way)
        return calls

    return force


def assert_same_bits_in_every_way(run, case, schedule):
    expected = run(case)
    for memory, *rest in product(MEMORY, CACHE_SIZE, THREADS):
        way = *memory, *rest
        calls = schedule(*way)
        for one, other in zip(run(case), expected, strict=True):
            assert_array_equal(one, other, err_msg=str(way))
        assert calls[-2:] == [way, way]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_same_bits_in_every_way(rng, schedule, name, dtype, training):
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, dtype, training=training, mean=3.0)
    assert_same_bits_in_every_way(run_cybn, case, schedule)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NORM_SHAPES)
def test_same_bits_of_every_norm(rng, schedule, name, dtype):
    case = make_norm_case(rng, name, dtype, mean=3.0)
    assert_same_bits_in_every_way(run_norm, case, schedule)


@pytest.mark.parametrize("dtype", DTYPES)
def test_streaming_any_length(rng, schedule, dtype):
    for n in range(2, 130):
        for shape, axis in [((3, n), 0), ((n, 3), 1), ((2, 2, 512 + n), 1)]:
            case = make_case(rng, shape, axis, dtype)
            schedule(False, False, 0, 1)
            expected = run_cybn(case)
            schedule(True, True, 0, 1)
            actual = run_cybn(case)
            assert_array_equal(actual.y, expected.y)
            assert_array_equal(actual.dx, expected.dx)


@pytest.mark.parametrize("stream", STREAM)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["NCHW", "NHWC", "short rows", "long rows", "N, C wide"])
def test_out_anywhere_in_a_buffer(rng, schedule, name, dtype, stream):
    """Every offset from a cache line, and not one value written before or behind."""
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, dtype)
    y, cache = cybn.forward(case.x, case.gamma, case.beta, axis=axis)
    dx = cybn.backward(case.dy, cache).dx
    schedule(True, stream, 0, 2)
    for offset in range(64 // case.x.itemsize):
        buffer = np.full(offset + y.size + 64, 7.0, dtype)
        out = buffer[offset : offset + y.size].reshape(shape)
        around = np.concatenate([buffer[:offset], buffer[offset + y.size :]])

        cybn.forward(case.x, case.gamma, case.beta, axis=axis, out=out)
        assert_array_equal(out, y)
        cybn.backward(case.dy, cache, out=out)
        assert_array_equal(out, dx)

        written = np.concatenate([buffer[:offset], buffer[offset + y.size :]])
        assert_array_equal(written, around)


@pytest.mark.parametrize("stream", STREAM)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_in_place(rng, schedule, name, dtype, stream):
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, dtype, training=False)
    expected = run_cybn(case)
    running = case.running_mean, case.running_var
    _, cache = cybn.forward(case.x, case.gamma, case.beta, **tracked(running), **case.options)
    schedule(True, stream, 0, 2)
    dy, x = case.dy.copy(), case.x.copy()
    assert_array_equal(cybn.backward(dy, cache, out=dy).dx, expected.dx)
    cybn.forward(x, case.gamma, case.beta, **tracked(running), **case.options, out=x)
    assert_array_equal(x, expected.y)
