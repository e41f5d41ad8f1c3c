"""The processor's level and the OpenMP runtime. Built for the plain baseline."""

cdef extern from "runtime.h" nogil:
    const bint has_openmp
    int cpu_level() noexcept
    int omp_get_max_threads() noexcept

OPENMP = bool(has_openmp)


def level():
    """The highest x86-64 level of this processor (1 to 4), 0 on other processors."""
    return cpu_level()


def max_threads():
    """What OpenMP would use for a region of the calling thread."""
    return omp_get_max_threads()
