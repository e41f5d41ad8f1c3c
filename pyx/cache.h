/* What Cython cannot say: prefetching, and stores that pass by the caches. */
#ifndef CYBN_CACHE_H
#define CYBN_CACHE_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "convert.h"

#define CACHE_LINE 64

/* How far it is from an address to the start of a line. */
static inline size_t to_line(const void *address) { return -(uintptr_t)address % CACHE_LINE; }

/* Into the second level: the first is full of what is in work. */
static inline void prefetch(const void *address, size_t size) {
    /* The last byte of each piece: where it begins inside a line, that line was read before. */
    for (size_t i = (size < CACHE_LINE ? size : CACHE_LINE) - 1; i < size; i += CACHE_LINE)
        __builtin_prefetch((const char *)address + i, 0, 2);
}

/* Copy past the caches: whole lines streamed, the ragged ends stored as usual. */
static inline void stream_copy(void *to, const void *from, size_t size) {
    size_t i = to_line(to) < size ? to_line(to) : size;
    memcpy(to, from, i);
#if defined(__x86_64__)
    for (size_t end = size - (size - i) % CACHE_LINE; i < end; i += sizeof(wide))
        stream_double((double *)((char *)to + i),
                      load_double((const double *)((const char *)from + i)));
#endif
    memcpy((char *)to + i, (const char *)from + i, size - i);
}

static inline void stream_fence(void) {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

#endif
