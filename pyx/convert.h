/* What Cython cannot say about numbers: conversions at full width, and on which units to subtract.
 * A compiler left alone loads 16 floats at once, and takes them apart and together again. */
#ifndef CYBN_CONVERT_H
#define CYBN_CONVERT_H

#include <assert.h>
#include <stddef.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
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

/* A register of float64, from and to each storage type, and from a mask. `stream` goes past the
 * caches, with two registers' values at once: what is written there comes in whole lines, or
 * halves and quarters of one. (In 16 bit, where it takes four, it also stores what stays, as `past`
 * says.) A strip is four registers, so that a loop over strips has enough for three or four
 * arrays. */
#if defined(__x86_64__) && defined(__AVX512F__)
#define STRIP 32
#define VECTOR 16
typedef __m512d_u wide;
typedef __m512 floats;
static inline floats floats_of(const wide *v) {
    __m512 low = _mm512_castps256_ps512(_mm512_cvtpd_ps(v[0]));
    return _mm512_insertf32x8(low, _mm512_cvtpd_ps(v[1]), 1);
}
static inline wide load_float(const float *from) { return _mm512_cvtps_pd(_mm256_loadu_ps(from)); }
static inline wide load_double(const double *from) { return _mm512_loadu_pd(from); }
static inline wide load_byte(const unsigned char *from) {
    return _mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i_u *)from)));
}
static inline void store_float(float *to, wide v) { _mm256_storeu_ps(to, _mm512_cvtpd_ps(v)); }
static inline void store_double(double *to, wide v) { _mm512_storeu_pd(to, v); }
static inline void stream_float(float *to, const wide *v, int past) {
    _mm512_stream_ps(to, floats_of(v));
}
static inline void stream_double(double *to, const wide *v, int past) {
    _mm512_stream_pd(to, v[0]);
    _mm512_stream_pd(to + 8, v[1]);
}
#elif defined(__x86_64__) && defined(__AVX__)
#define STRIP 16
#define VECTOR 8
typedef __m256d_u wide;
typedef __m256 floats;
static inline floats floats_of(const wide *v) {
    return _mm256_set_m128(_mm256_cvtpd_ps(v[1]), _mm256_cvtpd_ps(v[0]));
}
static inline wide load_float(const float *from) { return _mm256_cvtps_pd(_mm_loadu_ps(from)); }
static inline wide load_double(const double *from) { return _mm256_loadu_pd(from); }
static inline wide load_byte(const unsigned char *from) {
    int bytes;
    memcpy(&bytes, from, sizeof bytes);
    return _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)));
}
static inline void store_float(float *to, wide v) { _mm_storeu_ps(to, _mm256_cvtpd_ps(v)); }
static inline void store_double(double *to, wide v) { _mm256_storeu_pd(to, v); }
static inline void stream_float(float *to, const wide *v, int past) {
    _mm256_stream_ps(to, floats_of(v));
}
static inline void stream_double(double *to, const wide *v, int past) {
    _mm256_stream_pd(to, v[0]);
    _mm256_stream_pd(to + 4, v[1]);
}
#elif defined(__x86_64__) && defined(__SSE4_1__)
#define STRIP 8
#define VECTOR 4
typedef __m128d_u wide;
static inline wide load_float(const float *from) {
    return _mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i_u *)from)));
}
static inline wide load_double(const double *from) { return _mm_loadu_pd(from); }
static inline wide load_byte(const unsigned char *from) {
    short bytes;
    memcpy(&bytes, from, sizeof bytes);
    return _mm_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)));
}
static inline void store_float(float *to, wide v) {
    _mm_storel_epi64((__m128i_u *)to, _mm_castps_si128(_mm_cvtpd_ps(v)));
}
static inline void store_double(double *to, wide v) { _mm_storeu_pd(to, v); }
static inline void stream_float(float *to, const wide *v, int past) {
    _mm_stream_ps(to, _mm_movelh_ps(_mm_cvtpd_ps(v[0]), _mm_cvtpd_ps(v[1])));
}
static inline void stream_double(double *to, const wide *v, int past) {
    _mm_stream_pd(to, v[0]);
    _mm_stream_pd(to + 2, v[1]);
}
#elif defined(__aarch64__) && defined(__ARM_NEON)
/* Stores of whole lines in a row go past the caches by themselves there. */
#define STRIP 8
#define VECTOR 8
typedef float64x2_t wide __attribute__((aligned(8), may_alias));
static inline wide load_float(const float *from) { return vcvt_f64_f32(vld1_f32(from)); }
static inline wide load_double(const double *from) { return vld1q_f64(from); }
static inline wide load_byte(const unsigned char *from) {
    unsigned short bytes;
    memcpy(&bytes, from, sizeof bytes);
    uint16x8_t shorts = vmovl_u8(vreinterpret_u8_u16(vdup_n_u16(bytes)));
    return vcvtq_f64_u64(vmovl_u32(vget_low_u32(vmovl_u16(vget_low_u16(shorts)))));
}
static inline void store_float(float *to, wide v) { vst1_f32(to, vcvt_f32_f64(v)); }
static inline void store_double(double *to, wide v) { vst1q_f64(to, v); }
static inline void stream_float(float *to, const wide *v, int past) {
    vst1q_f32(to, vcvt_high_f32_f64(vcvt_f32_f64(v[0]), v[1]));
}
static inline void stream_double(double *to, const wide *v, int past) {
    vst1q_f64(to, v[0]);
    vst1q_f64(to + 2, v[1]);
}
#else   /* the compiler's own vectors */
#define STRIP 8
#define VECTOR 8
typedef double wide;
static inline wide load_float(const float *from) { return *from; }
static inline wide load_double(const double *from) { return *from; }
static inline wide load_byte(const unsigned char *from) { return *from; }
static inline void store_float(float *to, wide v) { *to = (float)v; }
static inline void store_double(double *to, wide v) { *to = v; }
static inline void stream_float(float *to, const wide *v, int past) {
    store_float(to, v[0]);
    store_float(to + 1, v[1]);
}
static inline void stream_double(double *to, const wide *v, int past) {
    store_double(to, v[0]);
    store_double(to + 1, v[1]);
}
#endif

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

#define STEP (sizeof(wide) / sizeof(double))
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

/* The lowest value that is stored as -0.0. */
#define lowest_zero(like) _Generic( \
    *(like), float: -0x1p-150, double: -0.0, float16: -0x1p-25, bfloat16: -0x1p-134)

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
