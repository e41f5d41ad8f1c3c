"""The processor's level and the OpenMP runtime. Built for the plain baseline."""

from os import fsdecode
from os.path import realpath

cdef extern from "runtime.h" nogil:
    const bint has_openmp
    const bint lost_threads
    int cpu_level() noexcept
    int handle_forks() noexcept
    int omp_get_max_threads() noexcept
    int omp_get_thread_limit() noexcept
    const char* openmp_library() noexcept

OPENMP = bool(has_openmp)

if handle_forks():
    raise MemoryError("cybn: no memory to register the fork handlers")


def level():
    """The highest x86-64 level of this processor (1 to 4), 0 on other processors."""
    return cpu_level()


def max_threads():
    """What OpenMP would use for a region of the calling thread."""
    return omp_get_max_threads()


def thread_limit():
    """The most threads that OpenMP runs at once (OMP_THREAD_LIMIT)."""
    return omp_get_thread_limit()


def has_threads():
    """Whether a region may have more than one thread."""
    return has_openmp and not lost_threads


def library():
    """The file of the OpenMP runtime in use, None if unknown."""
    cdef const char* path = openmp_library()
    return None if path == NULL else realpath(fsdecode(path))
