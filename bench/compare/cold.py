"""Cold arrays: sets of a cell's arrays, taken in turn from more memory than the caches hold."""

import ctypes
import gc
from math import ceil

from bench.cells import draw
from bench.compare.systems import Task

_ROUND_BYTES = 1 << 29  # of x and results: servers report up to 480 MiB of cache for one core
_FEWEST_SETS = 3
_MOST_SETS = 1 << 12  # (32, 64) in float32: 64 MiB, and as much again of Python's objects


def count_sets(cell, dtype):
    """How many sets of arrays a round goes through."""
    wanted = ceil(_ROUND_BYTES / (2 * cell.nbytes(dtype)))
    return min(max(wanted, _FEWEST_SETS), _MOST_SETS)


def draw_sets(cell, dtype):
    """Problems with the same values, each in memory of its own."""
    first = draw(cell, dtype)
    return [first, *(first.copy() for _ in range(count_sets(cell, dtype) - 1))]


def give_back():
    """Return freed memory to the system: each system's process would keep a gigabyte of it."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def in_turn(tasks):
    """One round over the tasks as a single task.

    A result lives until the one that takes its place in the next round has been made, as in a
    program whose layers keep their last output: so dropping it is part of what is timed.
    """
    runs = [task.run for task in tasks]
    results = [None] * len(runs)

    def run():
        for place, call in enumerate(runs):
            results[place] = call()

    return Task(run, None, len(runs))
