/* The processor's level, the OpenMP runtime, and what a fork needs. */
#ifndef CYBN_RUNTIME_H
#define CYBN_RUNTIME_H

#if __has_include(<dlfcn.h>) && __has_include(<pthread.h>) && !defined(_WIN32)
#define CYBN_POSIX /* Windows may have the headers, but no forks */
#include <dlfcn.h>
#include <pthread.h>
#endif

#ifdef _OPENMP
#include <omp.h>
static const int has_openmp = 1;
#else
static const int has_openmp = 0;
static int omp_get_max_threads(void) { return 1; }
static int omp_get_thread_limit(void) { return 1; }
#endif

#if defined(_OPENMP) && defined(CYBN_POSIX)
/* Fork. GNU's runtime keeps a pool of threads for each thread that ran a region. A child inherits
 * the pool of the thread that forked, but not the threads in it, and waits for them forever in its
 * next region. So the pool is given up before the fork, and parent and child both make a new one
 * when they need it. LLVM's runtime sees to forks itself. */
#pragma weak omp_pause_resource_all
extern void __kmpc_begin(void *, int) __attribute__((weak)); /* any name that only LLVM's has */

static _Thread_local int pool_is_fork_safe;
static int lost_threads; /* in a child whose pool could not be given up */

static void before_fork(void) {
    pool_is_fork_safe = __kmpc_begin != NULL || (omp_pause_resource_all != NULL &&
                                                 omp_pause_resource_all(omp_pause_soft) == 0);
}

static void in_child(void) {
    if (!pool_is_fork_safe) lost_threads = 1;
}

static int handle_forks(void) { return pthread_atfork(before_fork, NULL, in_child); }

/* The file of the OpenMP runtime that our calls reach, or NULL. */
static const char *openmp_library(void) {
    Dl_info info;
    return dladdr((void *)omp_get_max_threads, &info) ? info.dli_fname : NULL;
}
#else
static const int lost_threads = 0;
static int handle_forks(void) { return 0; }
static const char *openmp_library(void) { return NULL; }
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
