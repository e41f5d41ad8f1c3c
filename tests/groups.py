"""Groups of threads, each of which is a member: for tests, without other processes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class ThreadGroup:
    """One member's view of a group of threads; counts what is exchanged."""

    def __init__(self, shared, rank):
        self.shared, self.rank = shared, rank
        self.size = shared.size
        self.exchanges = 0

    def allgather(self, vector):
        assert type(vector) is np.ndarray
        assert vector.dtype == np.float64
        assert vector.ndim == 1
        self.exchanges += 1
        return self.shared.allgather(self.rank, vector)


class _Shared:
    def __init__(self, size):
        self.size = size
        self.vectors = [None] * size
        self.barrier = threading.Barrier(size, timeout=20)

    def allgather(self, rank, vector):
        self.vectors[rank] = vector.copy()
        self.barrier.wait()
        lengths = {len(each) for each in self.vectors}
        assert len(lengths) == 1, "members gather vectors of different lengths"
        rows = np.stack(self.vectors)
        self.barrier.wait()
        return rows


def run(size, member):
    """Return what `member(rank, group)` returns, or raises, on each of so many threads."""
    shared = _Shared(size)

    def work(rank):
        try:
            return member(rank, ThreadGroup(shared, rank))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, range(size)))
