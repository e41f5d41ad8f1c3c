"""What a thread brings along changes nothing: a small stack, other modes of its arithmetic."""

import json
import platform

import pytest
from levels import LEVELS, run_python

all_levels = pytest.mark.parametrize("level", LEVELS)


def digests(kind, level, **environment):
    return json.loads(run_python("thread_state.py", kind, level=level, **environment))


@pytest.fixture(scope="module")
def plain():
    return digests("plain", LEVELS[-1])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="sets the modes by machine code")
@all_levels
def test_subnormal_numbers_are_kept_where_the_thread_would_flush_them(plain, level):
    assert digests("flush", level) == plain


@all_levels
def test_small_stack(plain, level):
    """A thread of 32 KiB calls, and OpenMP's have no more either."""
    assert digests("small", level, OMP_STACKSIZE="32k") == plain
