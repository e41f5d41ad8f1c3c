"""How many threads a call uses: the setting, the environment, the processors, the work."""

import os

import numpy as np
import pytest
from levels import CONFIG, run_python

import cybn
from cybn import _runtime

PRINT_COUNT = "import cybn; print(cybn.get_num_threads())"
needs_openmp = pytest.mark.skipif(not CONFIG["openmp"], reason="built without OpenMP")
needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="the system does not tie processes to processors"
)


def test_default_is_one_or_more():
    assert cybn.get_num_threads() >= 1


@pytest.mark.parametrize("count", [1, 2, 3, 7, np.int64(2)])
def test_set_and_get(count):
    cybn.set_num_threads(count)
    assert cybn.get_num_threads() == count
    assert cybn.show_config(mode="dict")["num_threads"] == count


def test_context_restores_what_was_set():
    cybn.set_num_threads(3)
    with cybn.num_threads(2):
        assert cybn.get_num_threads() == 2
        with cybn.num_threads(5):
            assert cybn.get_num_threads() == 5
        assert cybn.get_num_threads() == 2
    assert cybn.get_num_threads() == 3


def test_context_restores_after_an_error():
    cybn.set_num_threads(3)
    with pytest.raises(KeyError), cybn.num_threads(2):
        raise KeyError
    assert cybn.get_num_threads() == 3


@pytest.mark.parametrize(
    ("count", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (10**30, ValueError),
        (1.5, TypeError),
        ("2", TypeError),
        ([1], TypeError),
    ],
)
def test_bad_count_changes_nothing(count, error):
    cybn.set_num_threads(3)
    with pytest.raises(error, match=r"\bn\b|threads"):
        cybn.set_num_threads(count)
    with pytest.raises(error, match=r"\bn\b|threads"), cybn.num_threads(count):
        pytest.fail("the body must not run")
    assert cybn.get_num_threads() == 3


@needs_openmp
@pytest.mark.parametrize("count", [1, 3, 64])
def test_environment_sets_the_default(count):
    """Even to more than there are processors: who sets it, means it."""
    assert int(run_python("-c", PRINT_COUNT, OMP_NUM_THREADS=str(count))) == count


@needs_affinity
def test_no_more_threads_than_usable_processors():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert int(run_python("-c", code + PRINT_COUNT, OMP_NUM_THREADS=None)) == 1


@needs_affinity
def test_usable_processors_may_change():
    """They are looked at in each call, not once."""
    code = """
import os, cybn
processors = os.sched_getaffinity(0)
before = cybn.get_num_threads()
os.sched_setaffinity(0, {min(processors)})
assert cybn.get_num_threads() == 1
os.sched_setaffinity(0, processors)
assert cybn.get_num_threads() == before
"""
    run_python("-c", code, OMP_NUM_THREADS=None)


@pytest.mark.parametrize(("granted", "expected"), [(1, 1), (7, 7), (200, 99), (None, 99)])
@needs_openmp
def test_no_more_threads_than_the_quota(monkeypatch, granted, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(_runtime, "_setting", None)
    monkeypatch.setattr(_runtime.native, "max_threads", lambda: 99)
    monkeypatch.setattr(_runtime, "_usable_processors", lambda: range(99))
    monkeypatch.setattr(_runtime, "_quota", _runtime._quota.__wrapped__)  # not the kept result
    monkeypatch.setattr(_runtime, "processors", lambda: granted)
    assert cybn.get_num_threads() == expected


@needs_openmp
@pytest.mark.parametrize(("counts", "expected"), [("2", 2), ("64", 3), ("64,2", 3)])
def test_no_more_threads_than_the_limit_of_openmp(counts, expected):
    """Neither of those that are offered, nor of those that are asked for."""
    code = f"{PRINT_COUNT}; cybn.set_num_threads(40); print(cybn.get_num_threads())"
    printed = run_python("-c", code, OMP_NUM_THREADS=counts, OMP_THREAD_LIMIT="3")
    assert printed.split() == [f"{expected}", "3"]


@needs_openmp
@pytest.mark.parametrize(("counts", "expected"), [("4,2", 4), (" 3 , 2 , 1", 3), ("+5", 5)])
def test_of_nested_counts_the_outermost_holds(counts, expected):
    assert int(run_python("-c", PRINT_COUNT, OMP_NUM_THREADS=counts)) == expected


@needs_openmp
@pytest.mark.parametrize("value", [None, "", " ", "0", "-2", "many", "4,", "4,x"])
def test_a_variable_that_sets_no_count_lifts_no_bound(value):
    """OpenMP passes over it; the processors and the quota still hold."""
    code = """
import cybn
from cybn import _runtime
_runtime.native.max_threads = lambda: 99
_runtime._usable_processors = lambda: range({})
_runtime._quota = lambda: {}
"""
    for bounds in [(3, 50), (50, 3)]:
        printed = run_python("-c", code.format(*bounds) + PRINT_COUNT, OMP_NUM_THREADS=value)
        assert int(printed) == 3


@needs_openmp
def test_no_more_threads_than_the_work_pays_for():
    cybn.set_num_threads(64)
    threads = [_runtime.schedule(1 << exponent).threads for exponent in range(16, 31)]
    assert threads == sorted(threads)
    assert threads[0] == 1
    assert threads[-1] == 64
    assert 1 < _runtime.schedule(4 * _runtime.BYTES_PER_THREAD).threads <= 4


def test_small_call_starts_no_threads():
    code = """
from bits import running_threads
import cybn, numpy as np
before = running_threads()
cybn.set_num_threads(64)
cybn.backward(np.ones((32, 64)), cybn.forward(np.ones((32, 64)))[1])
assert running_threads() == before
"""
    run_python("-c", code)
