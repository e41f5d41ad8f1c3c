"""Kept memory where memory is limited: by a cgroup, by the process's own limits."""

import contextlib
import os
import sys
from pathlib import Path

import pytest
from levels import run_python

from cybn import _system

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits and sizes as Linux has them"
)


def make_group():
    """Make a cgroup of 300 MiB, in the highest one that lets us, or return None."""
    for version, limit in (("memory", "memory.limit_in_bytes"), (_system.VERSION_2, "memory.max")):
        for group in reversed(_system._groups(version, "/")):
            own = Path(group, f"cybn-test-{os.getpid()}")
            with contextlib.suppress(OSError):
                own.mkdir()
                with contextlib.suppress(OSError):
                    (own / limit).write_text(f"{300 << 20}\n", encoding="ascii")
                    return own
                own.rmdir()
    return None


@pytest.fixture
def small_group():
    group = make_group()
    if group is None:
        pytest.skip("the system lets us make no cgroup")
    yield group
    group.rmdir()


@pytest.mark.parametrize("limit", ["AS", "DATA"])
def test_a_loop_over_sizes_in_a_limit_of_the_process(limit):
    run_python("limits.py", limit)


def test_a_loop_over_sizes_in_a_cgroup(small_group):
    run_python("limits.py", str(small_group))
