/* What Cython cannot say about caches: where a line begins, prefetching, and the fence that stores
 * past them need. */
#ifndef CYBN_CACHE_H
#define CYBN_CACHE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define CACHE_LINE 64

/* How far it is from an address to the start of a line. */
static inline size_t to_line(const void *address) { return -(uintptr_t)address % CACHE_LINE; }

/* Into the second level: the first is full of what is in work. */
static inline void prefetch(const void *address, size_t size) {
    /* The last byte of each piece: where it begins inside a line, that line was read before. */
    for (size_t i = (size < CACHE_LINE ? size : CACHE_LINE) - 1; i < size; i += CACHE_LINE)
        __builtin_prefetch((const char *)address + i, 0, 2);
}

static inline void stream_fence(void) {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

#endif
