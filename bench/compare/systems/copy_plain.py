"""The limit: the C library's copy of as many bytes as the call must move."""

import ctypes
import platform
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from bench.compare.systems import Task

_BYTES_PER_RUN = 1 << 28  # handing work to a thread costs as much as copying a megabyte
_BYTES_TO_SHARE = 1 << 20  # less than this, one thread is faster than several


class System:
    copy_bytes = staticmethod(ctypes.memmove)  # releases the GIL

    def __init__(self, threads):
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def configuration(self):
        return {"libc": " ".join(platform.libc_ver())}

    def training(self, problem, reuse):
        return self._copy(problem.buffer(), [problem.x]) if reuse else None

    def inference(self, problem, reuse):
        return self.training(problem, reuse)

    def backward(self, problem, reuse):
        """Two arrays are read and one is written: as many bytes as a copy of one and a half."""
        if not reuse:
            return None
        half = problem.dy.reshape(-1)[: problem.dy.size // 2]
        return self._copy(problem.buffer(), [problem.x, half])

    def _copy(self, target, sources):
        shares = self._threads if target.nbytes >= _BYTES_TO_SHARE else 1
        parts = [part for source in sources for part in _parts(target, source, shares)]
        by_thread = [parts[share::shares] for share in range(shares)]
        calls = max(1, _BYTES_PER_RUN // sum(source.nbytes for source in sources))
        run = _Copies(self, by_thread, calls, (target, sources))
        return Task(run, None, calls)

    def in_turn(self, tasks):
        """Each task's copy once, handed to the threads all together."""
        copies = [task.run for task in tasks]
        by_thread = [
            list(chain.from_iterable(mine))
            for mine in zip(*(copy.by_thread for copy in copies), strict=True)
        ]
        return Task(_Copies(self, by_thread, 1, copies), None, len(tasks))

    def share_out(self, work, by_thread):
        jobs = [self._pool.submit(work, parts) for parts in by_thread]
        for job in jobs:
            job.result()


class _Copies:
    """Parts that each thread copies one after the other, `repeats` times.

    `owners` keep the memory behind the pointers alive.
    """

    def __init__(self, system, by_thread, repeats, owners):
        self.by_thread = by_thread
        self._system = system
        self._repeats = repeats
        self.owners = owners

    def __call__(self):
        self._system.share_out(self._copy, self.by_thread)

    def _copy(self, parts):
        copy_bytes = self._system.copy_bytes
        for _ in range(self._repeats):
            for part in parts:
                copy_bytes(*part)


def _parts(target, source, shares):
    """(destination, source, size) of each of `shares` equal parts of a copy.

    Each goes to the beginning of a part of the target, where no other thread writes.
    """
    starts, cuts = (
        [array.nbytes * share // shares & -64 for share in range(shares)]
        for array in (target, source)
    )
    ends = [*cuts[1:], source.nbytes]
    to, origin = target.ctypes.data, source.ctypes.data
    parts = zip(starts, cuts, ends, strict=True)
    return [(to + start, origin + a, b - a) for start, a, b in parts]
