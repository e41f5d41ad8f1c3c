"""Caches of fused calls: used twice, copied, pickled, at other levels, and by many threads."""

import copy
import pickle
from itertools import product

import numpy as np
import pytest
from cases import DTYPES, make_case
from halves import HALVES, nearest
from levels import LEVELS, run_python
from numpy.testing import assert_array_equal
from reference_fused import ACTIVATIONS
from test_concurrency import call_at_once

import cybn

ALL_DTYPES = [np.dtype(dtype) for dtype in (*HALVES.values(), *DTYPES)]
INFERENCE = {"running_mean": np.zeros(3), "running_var": np.ones(3), "training": False}


def rounded(array, dtype):
    return nearest(array, dtype) if dtype in HALVES.values() else array.astype(dtype)


CACHES = [(activation, kind) for activation in ACTIVATIONS for kind in (None, "own", "float32")]


def caches(dtype):
    """Caches of all activations, without and with a residual, and dy."""
    rng = np.random.default_rng(5)
    x, residual, dy = (rounded(rng.normal(size=(4, 3, 5)), dtype) for _ in range(3))
    result = []
    for activation, kind in CACHES:
        added = {None: None, "own": residual, "float32": residual.astype(np.float32)}[kind]
        if kind != "float32" or dtype.itemsize == 2:
            options = {"activation": activation, "residual": added}
            for others in {}, INFERENCE, {"where": np.arange(5) > 1}:
                result.append(cybn.batch_norm(x, np.ones(3), **options, **others)[1])
    return result, dy


def all_bytes(gradients):
    arrays = [*gradients, gradients.dresidual]
    return [None if array is None else (array.dtype, array.tobytes()) for array in arrays]


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_caches_used_twice_copied_and_pickled(dtype):
    for cache in (pair := caches(dtype))[0]:
        dy = pair[1]
        expected = all_bytes(cybn.backward(dy, cache))
        twins = [cache, copy.copy(cache), copy.deepcopy(cache)]
        twins += [pickle.loads(pickle.dumps(cache, protocol)) for protocol in (2, 5)]
        for twin in twins:
            gradients = cybn.backward(dy, twin)
            assert all_bytes(gradients) == expected
            assert all_bytes(pickle.loads(pickle.dumps(gradients))) == expected
            assert all_bytes(copy.deepcopy(gradients)) == expected


PICKLED = """
import pickle, sys
import cybn
with open(sys.argv[1], "rb") as file:
    saved = pickle.load(file)
for caches, dy in saved:
    for cache in caches:
        gradients = cybn.backward(dy, cache)
        for array in (*gradients, gradients.dresidual):
            print(None if array is None else array.tobytes().hex())
print(sorted(name for name in sys.modules if "_kernels_" in name))
"""


@pytest.mark.parametrize("level", LEVELS)
def test_pickled_caches_are_used_at_any_level(tmp_path, level):
    saved = [caches(dtype) for dtype in ALL_DTYPES]
    path = tmp_path / "caches"
    path.write_bytes(pickle.dumps(saved))
    printed = run_python("-c", PICKLED, str(path), level=level).splitlines()
    expected = []
    for all_caches, dy in saved:
        for cache in all_caches:
            gradients = cybn.backward(dy, cache)
            for array in (*gradients, gradients.dresidual):
                expected.append("None" if array is None else array.tobytes().hex())
    assert printed[:-1] == expected
    assert printed[-1] == str([f"cybn._kernels_{level}"])


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_many_threads_at_once(rng, dtype):
    """Each with other activations at the same time, and backward from caches of all."""
    jobs = []
    for activation, shape in product(ACTIVATIONS, [(64, 33), (8, 16, 30, 30)]):
        case = make_case(rng, shape, 1, np.float64)
        x, dy = rounded(case.x, dtype), rounded(case.dy, dtype)
        options = {"activation": activation, "residual": dy}
        y, cache = cybn.batch_norm(x, case.gamma, **options)
        jobs.append((x, case.gamma, options, cache, dy, y, cybn.backward(dy, cache)))

    def check(caller):
        for i in np.roll(np.arange(len(jobs)), caller):
            x, gamma, options, cache, dy, y, expected = jobs[i]
            assert_array_equal(cybn.batch_norm(x, gamma, **options)[0], y)
            assert all_bytes(cybn.backward(dy, cache)) == all_bytes(expected)

    call_at_once(check)
