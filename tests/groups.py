"""Groups of threads, each of which is a member: what they gather is checked and counted."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

TIMEOUT = 20  # seconds, for a member that never comes


class ThreadGroup:
    """A group as one member sees it."""

    def __init__(self, meeting, rank):
        self.meeting, self.rank, self.size = meeting, rank, meeting.barrier.parties
        self.exchanges = 0

    def allgather(self, vector):
        assert type(vector) is np.ndarray
        assert vector.dtype == np.float64
        assert vector.ndim == 1
        self.exchanges += 1
        return self.meeting.gather(self.rank, vector)


class Communicator(ThreadGroup):
    """The same with the names that mpi4py has."""

    def __init__(self, meeting, rank):
        super().__init__(meeting, rank)
        self._size, self._gather = self.size, super().allgather
        del self.size

    def Get_size(self):
        return self._size

    def Allgather(self, vector, rows):
        rows[...] = self._gather(vector)

    def allgather(self, anything):
        raise AssertionError("mpi4py's allgather pickles")


class Meeting:
    """Where the threads leave their vectors."""

    def __init__(self, size):
        self.vectors = [None] * size
        self.barrier = threading.Barrier(size, timeout=TIMEOUT)

    def gather(self, rank, vector):
        self.vectors[rank] = vector.copy()
        self.barrier.wait()
        rows = np.stack(self.vectors)  # which raises if the lengths differ
        self.barrier.wait()
        return rows


def run_members(size, member, kind=ThreadGroup):
    """Return what `member(rank, group)` returns on each of so many threads, or the error."""
    meeting = Meeting(size)

    def work(rank):
        try:
            return member(rank, kind(meeting, rank))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, range(size)))


def run_well(size, member, kind=ThreadGroup):
    """Return what `member(rank, group)` returns on each of so many threads."""
    results = run_members(size, member, kind)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
