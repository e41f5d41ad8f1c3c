"""Many Python threads call at once, and others run during a call."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from cases import DTYPES, SHAPES, make_case, run_cybn, tracked
from numpy.testing import assert_array_equal

import cybn

CALLERS = 16
SEVERAL_THREADS_WORTH = {
    "large NCHW": ((32, 8, 40, 40), 1),
    "large NHWC": ((32, 40, 40, 8), -1),
    "large one channel": ((1, 1, 400_003), 1),
}


def call_at_once(function):
    """Call function(caller) from many Python threads, released at the same moment."""
    released = threading.Barrier(CALLERS)

    def call(caller):
        released.wait()
        with cybn.num_threads(1 + caller % 3):
            function(caller)

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(call, range(CALLERS)))


def test_same_bits_whatever_the_others_call(rng):
    shapes = (SHAPES | SEVERAL_THREADS_WORTH).values()
    cases = [make_case(rng, *shape, dtype) for shape, dtype in product(shapes, DTYPES)]
    expected = [run_cybn(case) for case in cases]

    def check_all(caller):
        for i in np.roll(np.arange(len(cases)), caller):
            for one, other in zip(run_cybn(cases[i]), expected[i], strict=True):
                assert_array_equal(one, other)

    call_at_once(check_all)


def test_one_cache_serves_many_backward_calls(rng):
    case = make_case(rng, (32, 8, 40, 40), 1)
    _, cache = cybn.forward(case.x, case.gamma, case.beta)
    expected = cybn.backward(case.dy, cache)

    def check(_):
        for one, other in zip(cybn.backward(case.dy, cache), expected, strict=True):
            assert_array_equal(one, other)

    call_at_once(check)


def longest_silence(call):
    """The part of a call's time during which another Python thread did not get to run at all."""
    done = threading.Event()
    ticks = []

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(1e-3)

    with ThreadPoolExecutor(1) as pool:
        ticking = pool.submit(tick)
        while not ticks:
            time.sleep(1e-3)
        start = time.perf_counter()
        call()
        stop = time.perf_counter()
        done.set()
        ticking.result()
    during = [start, *(t for t in ticks if start < t < stop), stop]
    return np.diff(during).max() / (stop - start)


@pytest.mark.parametrize("call", ["training", "inference", "backward", "backward of inference"])
def test_other_threads_run_during_a_call(call):
    """A call that kept the GIL would silence them for all of its time."""
    x = np.ones((32, 64, 128, 128), np.float32)
    out = np.zeros_like(x)
    running = np.zeros(64), np.ones(64)
    training = call in ("training", "backward")
    _, cache = cybn.forward(x, None, None, **tracked(running), training=training, out=out)

    def run():
        if call.startswith("backward"):
            cybn.backward(x, cache, out=out)
        else:
            cybn.forward(x, None, None, **tracked(running), training=training, out=out)

    with cybn.num_threads(1):
        assert min(longest_silence(run) for _ in range(3)) < 0.5
