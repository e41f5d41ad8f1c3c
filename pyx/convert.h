/* What Cython cannot say about numbers: conversions at full width, and on which units to subtract.
 * A compiler left alone loads 16 floats at once, and takes them apart and together again. */
#ifndef CYBN_CONVERT_H
#define CYBN_CONVERT_H

#include <assert.h>
#include <stddef.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* a - b, exactly rounded: where there is a choice, on the units that multiply, as those that add
 * have the conversions to do, too. (On aarch64 fma writes over its addend: that takes a copy each.) */
static inline double difference(double a, double b) {
#if defined(__FMA__)
    return __builtin_fma(a, 1.0, -b);
#else
    return a - b;
#endif
}

/* What a level adds to the compiler's own vectors, which fill one REGISTER of so many bytes: loads
 * of as many numbers as it has float64 (gcc 12 would widen them one by one, or by halves), halves
 * of it joined, the upper halves of numbers of 32 bit, and whether any bit is set. */
typedef int int_at __attribute__((aligned(1), may_alias));
typedef short short_at __attribute__((aligned(1), may_alias));
#if defined(__AVX512F__)
#define REGISTER 64
#define WHOLE(name) _mm512_##name
#define HALF(name) _mm256_##name
#define floats_at(from) _mm256_loadu_ps(from)
#define shorts_at(from) _mm_loadu_si128((const __m128i_u *)(from))
#define bytes_at(from) _mm_loadl_epi64((const __m128i_u *)(from))
#define joined(a, b) _mm512_insertf32x8(_mm512_castps256_ps512((__m256)(a)), (__m256)(b), 1)
#define uppers(a, b) _mm512_permutex2var_epi16((__m512i)(a), _mm512_set_epi32( \
    0x3f003d, 0x3b0039, 0x370035, 0x330031, 0x2f002d, 0x2b0029, 0x270025, 0x230021, \
    0x1f001d, 0x1b0019, 0x170015, 0x130011, 0xf000d, 0xb0009, 0x70005, 0x30001), (__m512i)(b))
#define uppers_at(from) _mm256_maskz_permutexvar_epi16(0xaaaa, _mm256_set_epi32( \
    0x70000, 0x60000, 0x50000, 0x40000, 0x30000, 0x20000, 0x10000, 0), \
    _mm256_castsi128_si256(shorts_at(from)))
#elif defined(__AVX2__)
#define REGISTER 32
#define WHOLE(name) _mm256_##name
#define HALF(name) _mm_##name
#define floats_at(from) _mm_loadu_ps(from)
#define shorts_at(from) _mm_loadl_epi64((const __m128i_u *)(from))
#define bytes_at(from) _mm_cvtsi32_si128(*(const int_at *)(from))
#define joined(a, b) _mm256_set_m128((__m128)(b), (__m128)(a))
#define uppers(a, b) _mm256_permute4x64_epi64( \
    _mm256_packus_epi32((__m256i)((a) >> 16), (__m256i)((b) >> 16)), 0xd8)
#define uppers_at(from) _mm_unpacklo_epi16(_mm_setzero_si128(), shorts_at(from))
#define any_of(mask) _mm256_movemask_epi8((__m256i)(mask))
#else
#define REGISTER 16
#define joined(a, b) ((longs){(long long)(a), (long long)(b)})
#define any_of(mask) ((((longs)(mask))[0] | ((longs)(mask))[1]) != 0)
#if defined(__SSE4_1__)
#define WHOLE(name) _mm_##name
#define HALF(name) _mm_##name
#define floats_at(from) (__m128)_mm_loadl_epi64((const __m128i_u *)(from))
#define shorts_at(from) _mm_cvtsi32_si128(*(const int_at *)(from))
#define bytes_at(from) _mm_cvtsi32_si128(*(const short_at *)(from))
#define uppers_at(from) _mm_unpacklo_epi16(_mm_setzero_si128(), shorts_at(from))
#define floats_of(a, b) _mm_movelh_ps(_mm_cvtpd_ps(a), _mm_cvtpd_ps(b))
#define uppers(a, b) _mm_packus_epi32((__m128i)((a) >> 16), (__m128i)((b) >> 16))
#else
#define uppers(a, b) joined(__builtin_convertvector((a) >> 16, shorts), \
                            __builtin_convertvector((b) >> 16, shorts))
#endif
#endif
#ifndef floats_of
#define floats_of(a, b) \
    joined(__builtin_convertvector(a, floats), __builtin_convertvector(b, floats))
#endif
#define STEP (REGISTER / 8)

typedef double wide __attribute__((vector_size(REGISTER), aligned(8), may_alias));
typedef float floats __attribute__((vector_size(REGISTER / 2), aligned(4), may_alias));
typedef unsigned short shorts __attribute__((vector_size(REGISTER / 2)));
typedef unsigned long long longs __attribute__((vector_size(REGISTER)));
typedef wide wide_at __attribute__((aligned(1)));

/* From and to each storage type, and from a mask. A strip is four registers, so that a loop over
 * strips has enough for three or four arrays. */
#define STRIP (4 * STEP)
#ifdef WHOLE
#define VECTOR (2 * STEP)
static inline wide load_float(const float *from) { return WHOLE(cvtps_pd)(floats_at(from)); }
static inline wide load_byte(const unsigned char *from) {
    return WHOLE(cvtepi32_pd)(HALF(cvtepu8_epi32)(bytes_at(from)));
}
static inline void stream(void *to, wide v) { WHOLE(stream_pd)(to, v); }
#else   /* stores of whole lines in a row go past the caches by themselves on aarch64 */
#define VECTOR (4 * STEP)
static inline wide load_float(const float *from) { return (wide){from[0], from[1]}; }
static inline wide load_byte(const unsigned char *from) { return (wide){from[0], from[1]}; }
static inline void stream(void *to, wide v) { *(wide_at *)to = v; }
#endif
static inline wide load_double(const double *from) { return *(const wide *)from; }
static inline void store_float(float *to, wide v) { *(floats *)to = __builtin_convertvector(v, floats); }
static inline void store_double(double *to, wide v) { *(wide *)to = v; }

/* Past the caches, with two registers' values at once: what is written there comes in whole lines,
 * or halves and quarters of one. (In 16 bit, where it takes four, it also stores what stays, as
 * `past` says.) */
static inline void stream_float(float *to, const wide *v, int past) {
    stream(to, (wide)floats_of(v[0], v[1]));
}
static inline void stream_double(double *to, const wide *v, int past) {
    stream(to, v[0]);
    stream(to + STEP, v[1]);
}

#include "half.h"

/* Single values. */
static inline double get_float(const float *from) { return *from; }
static inline double get_double(const double *from) { return *from; }
static inline double get_byte(const unsigned char *from) { return *from; }
static inline void put_float(float *to, double v) { *to = (float)v; }
static inline void put_double(double *to, double v) { *to = v; }

/* Says that a pointer is not NULL, so that a loop has no branch for that. */
#define not_null(pointer) (__extension__({ \
    __typeof__(pointer) pointer_ = (pointer); \
    assert(pointer_); \
    if (!pointer_) __builtin_unreachable(); \
    pointer_; }))

#define STREAMED(to) (sizeof *(to) < sizeof(float) ? 4 * STEP : 2 * STEP)

/* The function for the type that a pointer has. */
#define EACH(what) \
    float: what##_float, double: what##_double, float16: what##_float16, bfloat16: what##_bfloat16

/* Convert n values to float64. */
#define widen(from, to, n) do { \
    size_t i = 0, count = (n); \
    for (; i + STEP <= count; i += STEP) \
        *(wide *)((to) + i) = _Generic( \
            *(from), EACH(load), unsigned char: load_byte)((from) + i); \
    for (; count % STEP && i < count; i++) \
        (to)[i] = _Generic(*(from), EACH(get), unsigned char: get_byte)((from) + i); \
} while (0)

/* Round n values to the storage type. They are streamed by two registers or four, for which `to`
 * has to be aligned; what is left over is stored. */
#define narrow(from, to, n, streams) do { \
    size_t i = 0, count = (n); \
    for (; ((streams) || sizeof *(to) < sizeof(float)) && i + STREAMED(to) <= count; \
         i += STREAMED(to)) \
        _Generic(*(to), EACH(stream))((to) + i, (const wide *)((from) + i), (streams)); \
    for (; i + STEP <= count; i += STEP) \
        _Generic(*(to), EACH(store))((to) + i, *(const wide *)((from) + i)); \
    for (; count % STEP && i < count; i++) _Generic(*(to), EACH(put))((to) + i, (from)[i]); \
} while (0)

#endif
