"""What comes from outside during a call: no memory left, an interrupt."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from cases import tracked
from levels import run_python

import cybn


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits and sizes as Linux has them"
)
def test_no_memory_is_a_memory_error_and_leaks_nothing():
    run_python("starve.py")


@pytest.fixture
def _interruptible():
    """A shell starts its background jobs so that they ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_interrupt_arrives_after_the_call():
    """The result is complete, and Ctrl-C is not lost."""
    x = np.random.default_rng(0).normal(size=(32, 64, 128, 128)).astype(np.float32)
    expected, _ = cybn.forward(x)
    out, running_mean, running_var = np.zeros_like(x), np.zeros(64), np.ones(64)

    def interrupt():
        while not out[0, 0, 0, 0]:
            time.sleep(1e-4)
        os.kill(os.getpid(), signal.SIGINT)

    def call():
        cybn.forward(x, None, None, running_mean=running_mean, running_var=running_var, out=out)
        thread.join()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with cybn.num_threads(1), pytest.raises(KeyboardInterrupt):
        call()
    np.testing.assert_array_equal(out, expected)
    assert running_mean.all()


def test_no_reference_is_kept_to_an_array():
    shape = (4, 3)
    x, dy, out, *parameters = (np.ones(s) for s in [shape] * 3 + [3] * 4)
    arrays = x, dy, out, *parameters
    before = [sys.getrefcount(array) for array in arrays]
    for _ in range(10):
        _, cache = cybn.forward(x, *parameters[:2], **tracked(parameters[2:]), out=out)
        cybn.backward(dy, cache, out=out)
        with pytest.raises(ValueError, match="out"):
            cybn.forward(x, *parameters[:2], **tracked(parameters[2:]), out=x)
    del cache, _
    assert [sys.getrefcount(array) for array in arrays] == before
