"""Where in memory an array begins changes no bit.

Rows of lanes begin where a cache line does, wherever that is in the array: at each offset another
value comes first, and others are left over at both ends.
"""

from dataclasses import replace

import numpy as np
import pytest
from cases import DTYPES, make_case, run_cybn, tracked
from numpy.testing import assert_array_equal
from ways import force_schedule

import cybn

LINE = 64  # bytes

# (shape, axis): rows end to end, or pieces of longer rows; with all tails, and with none.
SHAPES = {
    "end to end": ((70, 64), 1),
    "folded, with a tail": ((8 * 64 * 4 + 3, 16), 1),
    "folded, with a tail of one value": ((8193, 1), 1),
    "channels inside": ((2, 16, 40, 4), -1),
    "two tiles": ((20, 1040), 1),
    "three tiles": ((40, 2176), 1),
    "a narrow last tile": ((20, 1024, 3), 1),
    "short rows": ((32, 64, 7, 7), 1),
    "rows of no whole line": ((200, 101), 1),
    "few rows": ((7, 64), 1),
    "NHWC": ((3, 9, 11, 32), -1),
    "NCHW": ((3, 4, 32, 32), 1),
    "long rows": ((2, 3, 5000), 1),
}
NORMS = {
    "instance norm": lambda x, gamma, **options: cybn.instance_norm(x, gamma, axis=-1, **options),
    "group norm": lambda x, gamma, **options: cybn.group_norm(x, 4, gamma, axis=-1, **options),
    "a gamma for each sample": lambda x, gamma, **options: cybn.forward(
        x, np.outer(np.arange(1.0, len(x) + 1), gamma), axis=-1, **options
    ),
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
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_each_array_at_an_offset_of_its_own(rng, monkeypatch, name, training, dtype, stream):
    """Prefetching and streaming, as large arrays are run; nothing is written beside `out`."""
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, dtype, training=training)
    expected = run_cybn(case)
    running = [case.running_mean.copy(), case.running_var.copy()]
    force_schedule(monkeypatch, lambda nbytes: (True, stream, 0, 2))
    for nbytes in range(0, LINE, 8):
        x, dy = at_offset(case.x, nbytes), at_offset(case.dy, (nbytes + 24) % LINE)
        out = at_offset(case.x, (nbytes + 40) % LINE)
        out.base[:] = 7
        y, cache = cybn.forward(
            x, case.gamma, case.beta, **tracked(running), **case.options, out=out
        )
        assert_array_equal(y, expected.y)
        dx, dgamma, dbeta = cybn.backward(dy, cache, out=out)
        assert_array_equal(dx, expected.dx)
        assert_array_equal(dgamma, expected.dgamma)
        assert_array_equal(dbeta, expected.dbeta)
        out.view(np.uint8)[...] = 7
        assert (out.base == 7).all()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cache_size", [0, 1 << 20])
@pytest.mark.parametrize("channels", [64, 1152])
@pytest.mark.parametrize("norm", NORMS)
def test_norms_of_samples_at_every_offset(rng, monkeypatch, norm, channels, cache_size, stream):
    """The last row of a sample ends where the next sample begins; phase by phase, part by part."""
    force_schedule(monkeypatch, lambda nbytes: (True, stream, cache_size, 2))
    x, dy = (rng.normal(size=(16, 23, channels)).astype(np.float32) for _ in range(2))
    gamma = rng.normal(size=channels)
    expected, cache = NORMS[norm](x, gamma)
    gradients = cybn.backward(dy, cache)
    for nbytes in range(0, LINE, 4):
        out = at_offset(x, (nbytes + 20) % LINE)
        y, cache = NORMS[norm](at_offset(x, nbytes), gamma, out=out)
        assert_array_equal(y, expected)
        for one, other in zip(cybn.backward(at_offset(dy, nbytes), cache), gradients, strict=True):
            assert one is other is None or (one == other).all()


@pytest.mark.parametrize("shape", [(70, 64), (32, 50, 8, 8), (20, 1040)])
def test_masks_at_every_offset(rng, shape):
    x = rng.normal(size=shape).astype(np.float32)
    where = rng.random((shape[0], 1, *shape[2:])) < 0.7
    expected, cache = cybn.forward(x, where=where)
    dx = cybn.backward(x, cache).dx
    for nbytes in range(0, LINE, 4):
        y, cache = cybn.forward(at_offset(x, nbytes), where=where)
        assert_array_equal(y, expected)
        assert_array_equal(cybn.backward(at_offset(x, nbytes), cache).dx, dx)
