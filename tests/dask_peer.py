"""Dask, without which its tests skip, or fail where CYBN_TEST_PEERS is set; and chunks."""

import importlib
import os

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cybn

needs = importlib.import_module if os.environ.get("CYBN_TEST_PEERS") else pytest.importorskip
da = needs("dask.array")
needs("distributed")

# (shape, axis, chunks): along any axes, those of the channels, or none.
CHUNKED = {
    "N, C": ((257, 65), 1, (32, 65)),
    "N, C, both": ((257, 65), -1, (32, 16)),
    "NCHW, samples": ((20, 17, 9, 11), 1, (3, -1, -1, -1)),
    "NCHW, rows": ((3, 17, 9, 11), 1, (3, 17, 2, 11)),
    "NCHW, all": ((6, 17, 9, 11), 1, (2, 5, 4, 6)),
    "NHWC, all": ((6, 9, 11, 17), -1, (2, 4, 6, 5)),
    "channels first": ((17, 3, 90), 0, (4, 3, 20)),
    "one channel a chunk": ((40, 6), 1, (7, 1)),
    "uneven": ((40, 6), 1, ((1, 30, 9), (4, 1, 1))),
    "two axes": ((30, 4, 6, 5), (1, 2), (7, 3, 4, 2)),
    "all axes but one": ((30, 4, 6), (1, 2), (7, 4, 5)),
    "no axis but channels": ((5, 4), (0, 1), (2, 3)),
    "1-D": ((100,), 0, (30,)),
    "one chunk": ((9, 4), 1, (9, 4)),
}
# A merge rounds a few times, at 1.1e-16 of |mean| + std, and of m2 times 1 + |mean| / std, which is
# 3.3 here. There are up to 60 of them, most in different branches of the tree.
TOLERANCE = 1e-14


def drawn(rng, name, dtype=np.float32):
    """Return an array of a case, its axis, and the same in chunks."""
    shape, axis, chunks = CHUNKED[name]
    x = rng.normal(9.0, 4.0, shape).astype(dtype)
    return x, axis, da.from_array(x, chunks=chunks)


def with_unknown_lengths(array):
    """Return an array of the same values whose chunks along the first axis have unknown lengths."""
    everything = da.ones(len(array), dtype=bool, chunks=array.chunks[:1])
    return array[everything]


def assert_same_moments(actual, expected):
    assert type(actual) is cybn.Moments
    assert type(actual.count) is type(expected.count)
    assert_array_equal(actual.count, expected.count)
    scale = np.abs(expected.mean) + np.nan_to_num(expected.std())
    assert actual.mean.shape == expected.mean.shape
    assert np.all(np.abs(actual.mean - expected.mean) <= TOLERANCE * scale)
    assert np.all(np.abs(actual.m2 - expected.m2) <= 10 * TOLERANCE * expected.m2)


def refused(error, name, remedy=""):
    """Expect an error that names an argument, and says what to do."""
    return pytest.raises(error, match=rf"(?s)^{name}: .*{remedy}")


def assert_same_bits(actual, expected):
    assert_array_equal(actual.count, expected.count)
    assert actual.mean.tobytes() == expected.mean.tobytes()
    assert actual.m2.tobytes() == expected.m2.tobytes()
