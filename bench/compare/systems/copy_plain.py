"""The limit: the C library's copy of as many bytes as the call must move."""

import ctypes
import platform
from concurrent.futures import ThreadPoolExecutor

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

        def run():
            jobs = [self._pool.submit(self._repeat, calls, mine) for mine in by_thread]
            for job in jobs:
                job.result()
            return target, sources  # keeps the memory behind the pointers alive

        return Task(run, None, calls)

    def _repeat(self, calls, parts):
        for _ in range(calls):
            for part in parts:
                self.copy_bytes(*part)


def _parts(target, source, shares):
    """(destination, source, size) of each of `shares` equal parts of a copy."""
    cuts = [source.nbytes * share // shares & -64 for share in range(shares)]
    ends = [*cuts[1:], source.nbytes]
    to, origin = target.ctypes.data, source.ctypes.data
    return [(to + a, origin + a, b - a) for a, b in zip(cuts, ends, strict=True)]
