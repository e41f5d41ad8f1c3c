"""The only place that chooses a thread count, and loads the kernels of the CPU level."""

import copyreg
import importlib
import os
import re
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from . import _native_runtime as native
from ._caches import find_caches
from ._checks import checked_int
from ._level import LEVEL, LEVELS
from ._memory import kept_memory, kept_memory_limit
from ._system import processors, read_text
from ._version import __version__

# A call that moves fewer bytes runs serially. Waking an idle OpenMP pool costs 2 to 12 us on a
# free machine, but milliseconds where another pool still spins, as OpenBLAS's after a matmul.
SERIAL_BYTES = 1 << 20
# Each further thread is worth its while from this many bytes.
BYTES_PER_THREAD = 1 << 19
MOST_THREADS = 1024
# OMP_NUM_THREADS as OpenMP takes it: a count for each level of nesting. It ignores all else.
OMP_COUNTS = r"\s*\+?0*[1-9]\d*\s*(,\s*\+?0*[1-9]\d*\s*)*"

kernels = importlib.import_module(f"{__package__}._kernels_{LEVEL}")


def _of_this_level(name, *fields):
    """Make an object of the kernels in use, whichever level's has been pickled."""
    return getattr(kernels, name)(*fields)


for each in (kernels.Layout, kernels.Settings, kernels.Arrays):
    copyreg.pickle(each, lambda its: (_of_this_level, (type(its).__name__, *its.__reduce__()[1])))

_setting = None
_override = ContextVar("cybn_num_threads", default=None)


def _checked_count(n):
    return checked_int(n, "n", least=1, most=MOST_THREADS)


def set_num_threads(n):
    """Set the number of threads that large calls use, in every Python thread.

    Parameters
    ----------
    n : int or None
        From 1 to 1024. Results do not depend on it. None takes the setting back; `get_num_threads`
        says what decides without it.

    Raises
    ------
    TypeError, ValueError
        If `n` is neither an int nor None, or out of range.

    Examples
    --------
    >>> import cybn
    >>> cybn.set_num_threads(1)
    >>> cybn.get_num_threads()
    1
    >>> cybn.set_num_threads(None)
    """
    global _setting
    _setting = None if n is None else _checked_count(n)


def get_num_threads():
    """Return the number of threads that a large call would use now.

    It is what `num_threads` or `set_num_threads` asked for. If neither was called, it is what
    OpenMP offers to the calling thread. Unless OMP_NUM_THREADS is set, that is limited to the
    number of processors that this process may use (its affinity), and to the quota of its cgroups,
    rounded up. It is never more than OMP_THREAD_LIMIT.

    Returns
    -------
    int

    Examples
    --------
    >>> import cybn
    >>> cybn.get_num_threads() >= 1
    True
    """
    if not native.has_threads():
        return 1
    chosen = _override.get() or _setting
    if chosen is None:
        chosen = native.max_threads()
        if not re.fullmatch(OMP_COUNTS, os.environ.get("OMP_NUM_THREADS", "")):
            chosen = min(chosen, len(_usable_processors()), _quota())
    return max(1, min(chosen, native.thread_limit()))


@contextmanager
def num_threads(n):
    """Use `n` threads inside a ``with`` block, in the current Python thread or task only.

    Parameters
    ----------
    n : int
        From 1 to 1024. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an int, or out of range.

    Examples
    --------
    >>> import cybn
    >>> with cybn.num_threads(1):
    ...     cybn.get_num_threads()
    1
    """
    token = _override.set(_checked_count(n))
    try:
        yield
    finally:
        _override.reset(token)


SERIAL = kernels.Schedule(False, False, SERIAL_BYTES, 1)


def schedule(nbytes):
    """Return how a kernel is to run a call that moves `nbytes`."""
    if nbytes < SERIAL_BYTES:
        return SERIAL
    size = caches().last
    threads = max(1, min(get_num_threads(), nbytes // BYTES_PER_THREAD))
    # The map reads what was just summed: prefetching that pays where it has left the caches again,
    # and streaming from where input and output begin to push one another out of them.
    return kernels.Schedule(nbytes > size * 3 // 8, nbytes > size * 2 // 3, size, threads)


def _usable_processors():
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


@cache
def _quota():
    return processors() or MOST_THREADS


@cache
def caches():
    """Return the sizes of the caches, looked for when a large call first asks."""
    return find_caches(_usable_processors(), _quota())


if os.environ.get("CYBN_CACHE_SIZE"):
    caches()  # what it says is refused at import, as a CPU level is


def _openmp_libraries():
    """Return the files of the OpenMP libraries loaded in this process, none if unknown."""
    files = r"(?m)^[^/\n]*(/.*/lib(?:gomp|i?omp5?)(?:-[0-9a-f]+)?\.[^/\n]*)$"
    return sorted(set(re.findall(files, read_text("/proc/self/maps"))))


def show_config(mode="print"):
    """Show how cybn was built and how it runs here.

    Parameters
    ----------
    mode : {"print", "dict"}
        Print the configuration, or return it.

    Returns
    -------
    dict or None
        None if it was printed. Otherwise a dict with these keys; sizes are in bytes.

        - ``version``: of cybn.
        - ``level``: the CPU level in use.
        - ``levels``: the CPU levels that were compiled and that this machine can run.
        - ``openmp``: whether cybn was built with OpenMP.
        - ``openmp_library``: the file of the OpenMP library in use.
        - ``openmp_libraries``: the files of all OpenMP libraries in this process (Linux only).
        - ``num_threads``: how many threads a large call would use.
        - ``cache_size``: how much of the last-level cache a call assumes that it can use.
        - ``reported_cache_size``: the size of that cache as the system reports it, or None.
        - ``cache_size_of_core``: the same assumption about the second-level cache of a core.
        - ``reported_cache_size_of_core``: its size as the system reports it, or None.
        - ``kept_memory``: how much memory of freed results is kept for new ones.
        - ``kept_memory_limit``: how much may be kept now.

    Raises
    ------
    ValueError
        If `mode` is neither "print" nor "dict".

    Notes
    -----
    The last-level cache is often shared with other processes. So a call assumes that it can use the
    share of the processors that this process may run on, or 8 MiB if that is more, but never more
    than 32 MiB. The environment variable CYBN_CACHE_SIZE, such as ``16M``, sets another size.

    Examples
    --------
    >>> import cybn
    >>> config = cybn.show_config(mode="dict")
    >>> config["level"] in config["levels"]
    True
    """
    if mode not in ("print", "dict"):
        raise ValueError(f'mode: expected "print" or "dict", got {mode!r}')
    found = caches()
    config = {
        "version": __version__,
        "level": LEVEL,
        "levels": list(LEVELS),
        "openmp": native.OPENMP,
        "openmp_library": native.library(),
        "openmp_libraries": _openmp_libraries(),
        "num_threads": get_num_threads(),
        "cache_size": found.last,
        "reported_cache_size": found.reported_last,
        "cache_size_of_core": found.core,
        "reported_cache_size_of_core": found.reported_core,
        "kept_memory": kept_memory(),
        "kept_memory_limit": kept_memory_limit(),
    }
    if mode == "dict":
        return config
    width = max(map(len, config)) + 1
    for key, value in config.items():
        print(f"{key + ':':{width}} {value}")
    if not native.OPENMP:
        print("Built without OpenMP: every call runs on one thread.")
    if len(config["openmp_libraries"]) > 1:
        print("Several OpenMP libraries are loaded: where two are in use, their threads compete.")
    return None
