"""Where in memory an array begins changes no bit.

Rows of lanes begin where a cache line does, wherever that is in the array: at each offset another
value comes first, and others are left over at both ends.
"""

from dataclasses import replace

import numpy as np
import pytest
from cases import DTYPES, make_case, run_cybn
from numpy.testing import assert_array_equal

import cybn
import cybn.functional

LINE = 64  # bytes

SHAPES = {
    "end to end": ((70, 64), 1),
    "end to end, folded, with a tail": ((8 * 64 * 4 + 3, 16), 1),
    "end to end, two samples' rows": ((2, 16, 40, 4), -1),
    "two tiles": ((20, 1040), 1),
    "a narrow last tile": ((20, 1024, 3), 1),
    "short rows": ((32, 64, 7, 7), 1),
    "rows of no whole line": ((40, 100), 1),
    "few rows": ((7, 64), 1),
    "NHWC": ((3, 9, 11, 32), -1),
    "NCHW": ((3, 4, 32, 32), 1),
    "long rows": ((2, 3, 5000), 1),
}


def at_offset(array, nbytes):
    """A copy that begins so many bytes after a cache line."""
    buffer = np.empty(array.nbytes + 2 * LINE, np.uint8)
    start = -buffer.ctypes.data % LINE + nbytes
    copy = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    assert copy.ctypes.data % LINE == nbytes
    return copy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_same_bits_at_every_offset(rng, name, dtype):
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, dtype, mean=3.0)
    expected = run_cybn(case)
    for nbytes in range(0, LINE, case.x.itemsize):
        moved = replace(case, x=at_offset(case.x, nbytes), dy=at_offset(case.dy, nbytes))
        for one, other in zip(run_cybn(moved), expected, strict=True):
            assert_array_equal(one, other, err_msg=f"offset {nbytes}")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_each_array_at_an_offset_of_its_own(rng, monkeypatch, name, dtype, stream):
    """Prefetching and streaming, as large arrays are run."""
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, dtype)
    expected = run_cybn(case)
    monkeypatch.setattr(cybn.functional, "schedule", lambda nbytes: (True, stream, 0, 2))
    for nbytes in range(0, LINE, 8):
        x, dy = at_offset(case.x, nbytes), at_offset(case.dy, (nbytes + 24) % LINE)
        out = at_offset(case.x, (nbytes + 40) % LINE)
        y, cache = cybn.forward(x, case.gamma, case.beta, axis=axis, out=out)
        assert_array_equal(y, expected.y)
        dx, dgamma, dbeta = cybn.backward(dy, cache, out=out)
        assert_array_equal(dx, expected.dx)
        assert_array_equal(dgamma, expected.dgamma)
        assert_array_equal(dbeta, expected.dbeta)


@pytest.mark.parametrize("shape", [(70, 64), (2, 50, 8, 8), (20, 1040)])
def test_masks_at_every_offset(rng, shape):
    x = rng.normal(size=shape).astype(np.float32)
    where = rng.random((shape[0], 1, *shape[2:])) < 0.7
    expected, cache = cybn.forward(x, where=where)
    dx = cybn.backward(x, cache).dx
    for nbytes in range(0, LINE, 4):
        y, cache = cybn.forward(at_offset(x, nbytes), where=where)
        assert_array_equal(y, expected)
        assert_array_equal(cybn.backward(at_offset(x, nbytes), cache).dx, dx)
