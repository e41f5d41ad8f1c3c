/* What each thread has of its own: its place in a parallel region, memory for the lanes of a tile,
 * which may be too much for its stack, and the modes of its arithmetic. */
#ifndef CYBN_THREAD_H
#define CYBN_THREAD_H

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifdef _OPENMP
#include <omp.h>
static inline int thread_number(void) { return omp_get_thread_num(); }
static inline int thread_count(void) { return omp_get_num_threads(); }
/* Cython's prange has `nowait`: it is no barrier. */
static inline void barrier(void) {
#pragma omp barrier
}
#else
static inline int thread_number(void) { return 0; }
static inline int thread_count(void) { return 1; }
static inline void barrier(void) {}
#endif

/* Raised by any of several threads, and read when all have come to a barrier. */
static inline void raise_flag(int *flag) { __atomic_store_n(flag, 1, __ATOMIC_RELAXED); }
static inline int flag_is_raised(const int *flag) {
    return __atomic_load_n(flag, __ATOMIC_RELAXED);
}

/* Five rows of lanes (`APART` in plan.pxd), and two lines; and the scratch of a small call. */
#define THREAD_LANES (5 * (1024 + 32) + 2 * 8)
#define THREAD_SCRATCH 4096

static double *thread_lanes(void) {
    static _Thread_local _Alignas(64) double lanes[THREAD_LANES];
    return lanes;
}

static double *thread_scratch(void) {
    static _Thread_local _Alignas(64) double scratch[THREAD_SCRATCH];
    return scratch;
}

/* Round to nearest, keep subnormals: a library may have set its threads to something else, and
 * results would depend on which thread computes them. `plain_arithmetic` returns what was set. */
#if defined(__x86_64__)
#define PLAIN 0x1f80u
#define EXCEPTIONS 0x3fu /* that were seen: they change no result */
typedef unsigned arithmetic;
static inline arithmetic modes(void) { return _mm_getcsr(); }
static inline void set_modes(arithmetic to) { _mm_setcsr(to); }
#elif defined(__aarch64__)
#define PLAIN 0u
#define EXCEPTIONS 0u
typedef unsigned long arithmetic;
static inline arithmetic modes(void) {
    arithmetic now;
    __asm__ volatile("mrs %0, fpcr" : "=r"(now));
    return now;
}
static inline void set_modes(arithmetic to) { __asm__ volatile("msr fpcr, %0" : : "r"(to)); }
#else
#define PLAIN 0u
#define EXCEPTIONS 0u
typedef unsigned arithmetic;
static inline arithmetic modes(void) { return PLAIN; }
static inline void set_modes(arithmetic to) { (void)to; }
#endif

static inline arithmetic plain_arithmetic(void) {
    arithmetic before = modes();
    if ((before & ~(arithmetic)EXCEPTIONS) != PLAIN) set_modes(PLAIN);
    return before;
}

static inline void restore_arithmetic(arithmetic before) {
    if ((before & ~(arithmetic)EXCEPTIONS) != PLAIN) set_modes(before);
}

#endif
