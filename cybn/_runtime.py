"""The only place that chooses a thread count, and loads the kernels of the CPU level."""

import importlib
import os
import re
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from . import _native_runtime as native
from ._checks import checked_int
from ._level import LEVEL, LEVELS
from ._memory import kept_memory
from ._version import __version__

# A call that moves fewer bytes runs serially. Waking an idle OpenMP pool costs 2 to 12 us on a
# free machine, but milliseconds where another pool still spins, as OpenBLAS's after a matmul.
SERIAL_BYTES = 1 << 20
# Each further thread is worth its while from this many bytes.
BYTES_PER_THREAD = 1 << 19
DEFAULT_CACHE_SIZE = 8 << 20
MOST_THREADS = 1024

kernels = importlib.import_module(f"{__package__}._kernels_{LEVEL}")

_setting = None
_override = ContextVar("cybn_num_threads", default=None)


def _checked_count(n):
    return checked_int(n, "n", least=1, most=MOST_THREADS)


def set_num_threads(n):
    """Set the number of threads that large calls use, in every Python thread.

    Parameters
    ----------
    n : int
        1 to 1024. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an int, or out of range.

    Examples
    --------
    >>> import cybn
    >>> before = cybn.get_num_threads()
    >>> cybn.set_num_threads(1)
    >>> cybn.get_num_threads()
    1
    >>> cybn.set_num_threads(before)
    """
    global _setting
    _setting = _checked_count(n)


def get_num_threads():
    """Return the number of threads that a large call from here would use.

    It is what `num_threads` or `set_num_threads` asked for. Without them it is what OpenMP offers
    to the calling thread, and unless OMP_NUM_THREADS is set, no more than the processors this
    process may use (affinity) nor its cgroup's quota, rounded up.

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
    if chosen is not None:
        return chosen
    offered = native.max_threads()
    if "OMP_NUM_THREADS" in os.environ:
        return offered
    return max(1, min(offered, _usable_processors(), _quota()))


@contextmanager
def num_threads(n):
    """Use `n` threads inside a ``with`` block, in the current Python thread or task only.

    Parameters
    ----------
    n : int
        1 to 1024. Results do not depend on it.

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


def schedule(nbytes):
    """Return how a kernel is to run a call that moves `nbytes`.

    That is: whether to prefetch, whether to write past the caches, the size of the last-level
    cache, and the number of threads. None of them changes a result.
    """
    if nbytes < SERIAL_BYTES:
        return False, False, DEFAULT_CACHE_SIZE, 1
    size = cache_size()
    threads = max(1, min(get_num_threads(), nbytes // BYTES_PER_THREAD))
    # Prefetching pays where a good part has to come from memory, and streaming from where input
    # and output begin to push one another out of the cache.
    return nbytes > size * 3 // 8, nbytes > size * 2 // 3, size, threads


def _usable_processors():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _quota():
    """Return the processors that the cgroups of this process grant, rounded up."""
    own = re.search("(?m)^0::/(.*)", _read("/proc/self/cgroup"))
    names = own[1].split("/") if own else []
    groups = ["/".join(["/sys/fs/cgroup", *names[:depth]]) for depth in range(len(names) + 1)]
    limits = [_read(f"{group}/cpu.max") for group in groups]
    version_1 = "/sys/fs/cgroup/cpu/cpu.cfs_{}_us"
    limits.append(_read(version_1.format("quota")) + _read(version_1.format("period")))
    granted = [
        -(-int(words[0]) // int(words[1]))
        for words in map(str.split, limits)
        if len(words) == 2 and all(word.isdigit() for word in words)
    ]
    return max(1, min(granted, default=MOST_THREADS))


@cache
def cache_size():
    """Return the size in bytes of the last-level cache."""
    folder = "/sys/devices/system/cpu/cpu0/cache/index{}/size"
    sizes = [_read(folder.format(index)).strip() for index in range(5)]
    units = {"K": 1 << 10, "M": 1 << 20}
    found = [int(s[:-1]) * units[s[-1]] for s in sizes if s[-1:] in units and s[:-1].isdigit()]
    return max(found, default=DEFAULT_CACHE_SIZE)


def _openmp_libraries():
    """Return the files of the OpenMP libraries loaded in this process, none if unknown."""
    files = r"(?m)^[^/\n]*(/.*/lib(?:gomp|i?omp5?)(?:-[0-9a-f]+)?\.[^/\n]*)$"
    return sorted(set(re.findall(files, _read("/proc/self/maps"))))


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def show_config(mode="print"):
    """Show how cybn was built and how it runs here.

    Parameters
    ----------
    mode : {"print", "dict"}
        Print the configuration, or return it.

    Returns
    -------
    dict or None
        ``version``; ``level``, the CPU level in use; ``levels``, those that were compiled and this
        machine can run; ``openmp``, whether it was built with OpenMP;
        ``openmp_library``, the file of the OpenMP library in use; ``openmp_libraries``, those of
        all that are loaded in this process (Linux only); ``num_threads``; ``cache_size``, of the
        last level, and ``kept_memory``, that of freed results, in bytes.

    Raises
    ------
    ValueError
        If `mode` is neither.

    Examples
    --------
    >>> import cybn
    >>> config = cybn.show_config(mode="dict")
    >>> config["level"] in config["levels"]
    True
    """
    if mode not in ("print", "dict"):
        raise ValueError(f'mode: expected "print" or "dict", got {mode!r}')
    config = {
        "version": __version__,
        "level": LEVEL,
        "levels": list(LEVELS),
        "openmp": native.OPENMP,
        "openmp_library": native.library(),
        "openmp_libraries": _openmp_libraries(),
        "num_threads": get_num_threads(),
        "cache_size": cache_size(),
        "kept_memory": kept_memory(),
    }
    if mode == "dict":
        return config
    for key, value in config.items():
        print(f"{key + ':':17} {value}")
    if not native.OPENMP:
        print("Built without OpenMP: every call runs on one thread.")
    if len(config["openmp_libraries"]) > 1:
        print("Several OpenMP libraries are loaded: where two are in use, their threads compete.")
    return None
