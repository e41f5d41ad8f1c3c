"""Not one value is read or written outside of an array, at any level, however a call is run."""

import sys

import pytest
from levels import LEVELS, run_python_unchecked


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="maps memory as Linux does")
@pytest.mark.parametrize("level", LEVELS)
def test_pages_around_arrays_are_not_touched(level):
    process = run_python_unchecked("-X", "faulthandler", "guards.py", level=level)
    assert process.returncode == 0, process.stderr
