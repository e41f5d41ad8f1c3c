/* The processor's level, the OpenMP runtime, and what a fork needs. */
#ifndef CYBN_RUNTIME_H
#define CYBN_RUNTIME_H

#ifdef _OPENMP
#include <omp.h>
static const int has_openmp = 1;
#else
static const int has_openmp = 0;
static int omp_get_max_threads(void) { return 1; }
#endif

/* The highest x86-64 level the processor supports, 1 for the plain baseline, 0 elsewhere. */
static int cpu_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1") &&
          __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt")))
        return 1;
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
          __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")))
        return 2;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl")))
        return 3;
    return 4;
#else
    return 0;
#endif
}

#endif
