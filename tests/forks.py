"""Fork in one of the ways of `SCENARIOS` between parallel regions, and print the seconds it took.

    python forks.py os_fork
    python forks.py pool_spawn --while-threads-call

It fails if a process computes other bits than the first one, or lacks its threads. A child that
waits for threads that it did not inherit hangs, and so must be watched from outside.
"""

import hashlib
import multiprocessing
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np

import cybn

OPENMP = cybn.show_config(mode="dict")["openmp"]
X = np.random.default_rng(0).normal(size=(32, 8, 40, 40)).astype(np.float32)
ROUNDS, WORKERS, CALLING_THREADS = 5, 2, 8


def region(_=None):
    """A digest of what forward and backward give, computed by three threads."""
    with cybn.num_threads(3):
        y, cache = cybn.forward(X)
        dx = cybn.backward(X, cache).dx
    tasks = Path("/proc/self/task")
    if OPENMP and tasks.exists():
        assert len(list(tasks.iterdir())) >= 3, "the region had no threads"
    return hashlib.blake2b(y.tobytes() + dx.tobytes()).digest()


def check(expected):
    assert region() == expected, "other bits"


def in_child(function, *arguments):
    """Call a function in a forked child."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function(*arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0, "a child failed"


def generations(expected, descendants):
    check(expected)
    if descendants:
        in_child(generations, expected, descendants - 1)
    check(expected)


def os_fork(expected):
    for _ in range(ROUNDS):
        generations(expected, descendants=2)


def os_fork_in_threads(expected):
    """Several threads fork at once."""
    with ThreadPoolExecutor(WORKERS) as threads:
        list(threads.map(os_fork, [expected] * WORKERS))


def process(method, expected, descendants=2):
    """Processes that start processes."""
    check(expected)
    context = multiprocessing.get_context(method)
    for _ in range(descendants):
        child = context.Process(target=process, args=(method, expected, descendants - 1))
        child.start()
        child.join()
        assert child.exitcode == 0
        check(expected)


def pool(method, expected):
    for _ in range(2):
        with multiprocessing.get_context(method).Pool(WORKERS) as workers:
            assert workers.map(region, range(4), chunksize=1) == [expected] * 4
        check(expected)


def executor(method, expected):
    context = multiprocessing.get_context(method)
    for _ in range(2):
        with ProcessPoolExecutor(WORKERS, mp_context=context) as workers:
            assert list(workers.map(region, range(4))) == [expected] * 4
        check(expected)


SCENARIOS = {"os_fork": os_fork, "os_fork_in_threads": os_fork_in_threads} | {
    f"{function.__name__}_{method}": partial(function, method)
    for function in (process, pool, executor)
    for method in ("fork", "forkserver", "spawn")
}


@contextmanager
def threads_calling(expected):
    """Call cybn from many threads meanwhile, and check their results, too."""
    done = threading.Event()

    def call_until_done():
        while not done.is_set():
            check(expected)

    with ThreadPoolExecutor(CALLING_THREADS) as threads:
        calls = [threads.submit(call_until_done) for _ in range(CALLING_THREADS)]
        try:
            yield
        finally:
            done.set()
    for call in calls:
        call.result()


def main(scenario, *options):
    expected = region()
    with threads_calling(expected) if options else nullcontext():
        start = time.perf_counter()
        SCENARIOS[scenario](expected)
        print(time.perf_counter() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
