/* What Cython cannot say: prefetching, and stores that pass by the caches. */
#ifndef CYBN_CACHE_H
#define CYBN_CACHE_H

#include <assert.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define CACHE_LINE 64

/* How far an address lies behind the start of its line. */
static inline size_t into_line(const void *address) { return (uintptr_t)address % CACHE_LINE; }

/* Into the second level: the first is full of what is in work. */
static inline void prefetch(const void *address, size_t size) {
    /* The last byte of each piece: where it begins inside a line, that line was read before. */
    for (size_t i = CACHE_LINE - 1; i < size; i += CACHE_LINE)
        __builtin_prefetch((const char *)address + i, 0, 2);
}

#if defined(__x86_64__)
static inline void stream_line(char *to, const char *from) {
#if defined(__AVX512F__)
    _mm512_stream_si512((void *)to, _mm512_loadu_si512(from));
#elif defined(__AVX__)
    for (int i = 0; i < CACHE_LINE; i += 32)
        _mm256_stream_si256((__m256i *)(to + i), _mm256_loadu_si256((const __m256i *)(from + i)));
#else
    for (int i = 0; i < CACHE_LINE; i += 16)
        _mm_stream_si128((__m128i *)(to + i), _mm_loadu_si128((const __m128i *)(from + i)));
#endif
}
static inline void stream_fence(void) { _mm_sfence(); }
#else
static inline void stream_line(char *to, const char *from) { memcpy(to, from, CACHE_LINE); }
static inline void stream_fence(void) {}
#endif

/* Copy past the caches: whole lines streamed, the ragged ends stored as usual. */
static inline void stream_copy(void *to, const void *from, size_t bytes) {
    char *target = (char *)to;
    const char *source = (const char *)from;
    size_t head = (CACHE_LINE - into_line(target)) % CACHE_LINE;
    if (head > bytes) head = bytes;
    memcpy(target, source, head);
    for (; head + CACHE_LINE <= bytes; head += CACHE_LINE)
        stream_line(target + head, source + head);
    memcpy(target + head, source + head, bytes - head);
}

#endif
