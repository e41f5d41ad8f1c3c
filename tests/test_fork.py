"""After parallel regions every way to start a process works: no hang, and the same bits."""

import os
import signal
import subprocess
import sys

import pytest
from forks import SCENARIOS
from levels import TESTS

import cybn
from cybn import _native_runtime, _runtime

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")

TIMEOUT = 120  # seconds, many times what a slow machine needs: beyond it is a hang


def seconds_of(*arguments):
    """Run forks.py in a session of its own, so that a hang can be ended with all its children."""
    process = subprocess.Popen(
        [sys.executable, "forks.py", *arguments],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"{arguments} hangs: " + process.communicate()[1])
    assert process.returncode == 0, errors
    return float(printed)


alone_and_while_threads_call = pytest.mark.parametrize(
    "options", [(), ("--while-threads-call",)], ids=["alone", "while threads call"]
)


@alone_and_while_threads_call
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_same_bits_in_every_process(scenario, options):
    seconds_of(scenario, *options)


@alone_and_while_threads_call
def test_five_rounds_of_nested_forks_are_quick(options):
    assert seconds_of("os_fork", *options) < 5


def test_child_that_lost_its_threads_runs_serially(monkeypatch):
    """Where the OpenMP runtime cannot give up its pool."""
    assert _native_runtime.has_threads() == _native_runtime.OPENMP
    monkeypatch.setattr(_native_runtime, "has_threads", lambda: False)
    with cybn.num_threads(4):
        assert cybn.get_num_threads() == 1
        assert _runtime.schedule(1 << 30).threads == 1
