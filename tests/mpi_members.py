"""What tests/test_mpi.py runs under mpiexec: `python mpi_members.py CASE [ARGUMENT ...]`."""

import os
import signal
import sys
import time

import ml_dtypes
import numpy as np
from mpi4py import MPI

import cybn

comm = MPI.COMM_WORLD
RANK, SIZE = comm.Get_rank(), comm.Get_size()
SHAPES = {"NCHW": ((6, 3, 5), 1), "NHWC": ((3, 5, 6), -1), "NC": ((6,), 1)}


class Counted:
    """The communicator, and how often it has gathered."""

    def __init__(self):
        self.count = 0

    def Get_size(self):
        return SIZE

    def Allgather(self, vector, rows):
        self.count += 1
        comm.Allgather(vector, rows)


def train(parts, group, layout, dtype):
    """Return the results of two steps of a layer, of this member's parts."""
    inner, axis = SHAPES[layout]
    rng = np.random.default_rng(0)
    layer = cybn.BatchNorm(inner[0 if axis == 1 else -1], axis=axis, group=group)
    results = []
    for _ in range(2):
        x, dy = rng.normal(3, 2, (2, 32, *inner)).astype(np.float32).astype(dtype)
        results += [layer(x[parts]), layer.backward(dy[parts])]
    return results, [layer.running_mean, layer.running_var]


def values(layout, dtype):
    """One process = a group of one = a group of many, and many, each for itself, differ."""
    sizes = {1: (32,), 2: (31, 1), 3: (7, 25, 0), 4: (7, 1, 0, 24)}[SIZE]
    stop = np.cumsum(sizes)[RANK]
    part = slice(stop - sizes[RANK], stop)
    group = Counted()
    whole, whole_running = train(slice(None), None, layout, dtype)
    of_one, _ = train(slice(None), MPI.COMM_SELF, layout, dtype)
    of_many, running = train(part, group, layout, dtype)
    again, _ = train(part, comm, layout, dtype)
    same_bits = [each.tobytes() for each in of_many] == [each.tobytes() for each in again]
    error = max(
        np.max(np.abs(np.subtract(mine, right[part], dtype=np.float64)), initial=0)
        for mine, right in zip(of_many, whole, strict=True)
    )
    apart = None
    if sizes[RANK] > 1:
        apart = np.max(np.abs(np.subtract(train(part, None, layout, dtype)[0][0], whole[0][part])))
    all_running = comm.allgather([each.tobytes() for each in running])
    checks = {
        "a group of one is one process": all(
            np.array_equal(a, b) for a, b in zip(of_one, whole, strict=True)
        ),
        "the same bits again": same_bits,
        "the same bits on all": all(each == all_running[0] for each in all_running),
        "running statistics of the whole": all(
            np.allclose(a, b, rtol=2.0**-23, atol=0)
            for a, b in zip(running, whole_running, strict=True)
        ),
        "as one": error <= {"float64": 1e-13, "float32": 2.0**-22}.get(dtype.name, 2.0**-6),
        "each for itself differs": SIZE == 1 or apart is None or apart > 1e-3,
        "one exchange a direction": group.count == (0 if SIZE == 1 else 4),
    }
    failed = [name for name, passed in checks.items() if not passed]
    print(f"member {RANK}: {failed or 'passed'} (error {error:.3g})", flush=True)
    sys.exit(bool(failed))


def wrong(what):
    """Each member prints the error that it gets."""
    x = np.ones((4, 3 + (what == "channels" and RANK == 1)))
    gamma = np.ones(5 if what == "gamma" and RANK == 1 else x.shape[1])
    eps = 1e-3 if what == "eps" and RANK == 1 else 1e-5
    try:
        cybn.batch_norm(x[: RANK if what == "single" else None], gamma, eps=eps, group=comm)
    except ValueError as error:
        print(f"member {RANK}: {error}", flush=True)
    else:
        sys.exit(f"member {RANK}: no error")


def alone():
    """Member 1 raises before it gathers: `-m mpi4py` in front of this ends all."""
    if RANK == 1:
        raise RuntimeError("before the call")
    cybn.batch_norm(np.ones((4, 3)), group=comm)


def killed():
    """Member 1 is killed."""
    if RANK == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    cybn.batch_norm(np.ones((4, 3)), group=comm)


def late():
    """Member 1 never comes, though it lives."""
    if RANK == 1:
        time.sleep(3600)
    cybn.batch_norm(np.ones((4, 3)), group=comm)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name == "values":
        layout, dtype = arguments
        values(layout, np.dtype(getattr(ml_dtypes, dtype, None) or dtype))
    else:
        {"wrong": wrong, "alone": alone, "killed": killed, "late": late}[name](*arguments)
