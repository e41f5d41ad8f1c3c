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

/* How far it is from an address to the start of a line. */
static inline size_t to_line(const void *address) { return -(uintptr_t)address % CACHE_LINE; }

/* a - b, exactly rounded: where there is a choice, on the units that multiply, as those that add
 * have the conversions to do, too. */
static inline double difference(double a, double b) {
#if defined(__FMA__)
    return __builtin_fma(a, 1.0, -b);
#else
    return a - b;
#endif
}

/* Into the second level: the first is full of what is in work. */
static inline void prefetch(const void *address, size_t size) {
    /* The last byte of each piece: where it begins inside a line, that line was read before. */
    for (size_t i = CACHE_LINE - 1; i < size; i += CACHE_LINE)
        __builtin_prefetch((const char *)address + i, 0, 2);
}

/* What one instruction copies, past the caches or not. */
#if defined(__AVX512F__)
typedef __m512i_u chunk;
#define STREAM(to, value) _mm512_stream_si512((void *)(to), value)
#elif defined(__AVX__)
typedef __m256i_u chunk;
#define STREAM(to, value) _mm256_stream_si256((__m256i *)(to), value)
#elif defined(__x86_64__)
typedef __m128i_u chunk;
#define STREAM(to, value) _mm_stream_si128((__m128i *)(to), value)
#else
typedef char chunk;
#define STREAM(to, value) (*(chunk *)(to) = (value))
#endif

/* Copy whole lines. No memcpy: then they would not stay in registers. */
static inline void copy_lines(void *to, const void *from, size_t size, int stream) {
    for (size_t i = 0; i < size; i += sizeof(chunk)) {
        chunk value = *(const chunk *)((const char *)from + i);
        if (stream)
            STREAM((char *)to + i, value);
        else
            *(chunk *)((char *)to + i) = value;
    }
}

/* Copy past the caches: whole lines streamed, the ragged ends stored as usual. */
static inline void stream_copy(void *to, const void *from, size_t size) {
    size_t head = to_line(to) < size ? to_line(to) : size;
    size_t end = size - (size - head) % CACHE_LINE;
    memcpy(to, from, head);
    copy_lines((char *)to + head, (const char *)from + head, end - head, 1);
    memcpy((char *)to + end, (const char *)from + end, size - end);
}

static inline void stream_fence(void) {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

#endif
