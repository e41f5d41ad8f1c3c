"""MPI, without which its tests skip, or fail where CYBN_TEST_PEERS is set; and how to run it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent

if os.environ.get("CYBN_TEST_PEERS"):
    import mpi4py  # noqa: F401
else:
    pytest.importorskip("mpi4py")


def find_mpiexec():
    """The one beside this Python, which the package mpich brings, or that of the system."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        reason = "there is no mpiexec: pip install mpich"
        if os.environ.get("CYBN_TEST_PEERS"):
            raise RuntimeError(reason)
        pytest.skip(reason, allow_module_level=True)
    return found


MPIEXEC = find_mpiexec()


def run_mpi(size, *arguments, timeout=60):
    """Return (exit code or None if time was up, all that was printed), and leave no process."""
    process = subprocess.Popen(
        [MPIEXEC, "-n", str(size), sys.executable, *map(str, arguments)],
        cwd=TESTS,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=timeout)
        return process.returncode, printed
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # mpiexec ends its members
        try:
            printed, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
        return None, printed
