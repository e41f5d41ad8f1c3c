"""The CPU levels cybn can be run at here. A level is chosen at import, so each needs a process."""

import os
import subprocess
import sys
from pathlib import Path

import cybn

TESTS = Path(__file__).parent
CONFIG = cybn.show_config(mode="dict")
LEVELS = CONFIG["levels"]
OTHER_LEVELS = [level for level in LEVELS if level != CONFIG["level"]]


def run_python(*arguments, level=CONFIG["level"], **environment):
    """Run `python *arguments` in tests/ with cybn forced to a level; return what it printed.

    A variable of the environment that is None is removed.
    """
    process = run_python_unchecked(*arguments, level=level, **environment)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def run_python_unchecked(*arguments, level=CONFIG["level"], **environment):
    environment = os.environ | environment | {"CYBN_LEVEL": level}
    return subprocess.run(
        [sys.executable, *arguments],
        env={name: value for name, value in environment.items() if value is not None},
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
