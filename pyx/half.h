/* Numbers of 16 bit, for convert.h: read exactly, and rounded once, from float64 to the nearest and
 * of two as near to the even one. By float64's and float32's arithmetic alone: processors' own ways
 * to bfloat16 flush subnormal numbers, or go by way of float32 and round twice. */
#ifndef CYBN_HALF_H
#define CYBN_HALF_H

typedef struct { unsigned short bits; } float16;
typedef struct { unsigned short bits; } bfloat16;       /* the upper half of a float32 */

/* `shorts` are as many of them as `wide` has numbers, a `line` is a strip of them. What is narrowed
 * was rounded before so far that narrowing, by way of float32, rounds right. */
#if defined(__x86_64__) && defined(__AVX512F__)
typedef unsigned long long bits __attribute__((vector_size(64)));
typedef __m128i shorts;
typedef __m512i line;
static inline wide bounded(wide v, double low, double high) {
    return _mm512_min_pd(_mm512_set1_pd(high), _mm512_max_pd(_mm512_set1_pd(low), v));
}
static inline shorts get_shorts(const void *from) { return _mm_loadu_si128(from); }
static inline void put_shorts(void *to, shorts v) { _mm_storeu_si128(to, v); }
static inline void put_line(void *to, line v, int past) {
    if (past) _mm512_stream_si512(to, v);
    else _mm512_storeu_si512(to, v);
}
static inline wide widen_float16(shorts v) { return _mm512_cvtps_pd(_mm256_cvtph_ps(v)); }
static inline wide widen_bfloat16(shorts v) {
    const __m256i index = _mm256_set_epi32(
        0x70000, 0x60000, 0x50000, 0x40000, 0x30000, 0x20000, 0x10000, 0);
    __m256i high = _mm256_maskz_permutexvar_epi16(0xaaaa, index, _mm256_castsi128_si256(v));
    return _mm512_cvtps_pd(_mm256_castsi256_ps(high));
}
static inline shorts narrow_float16(wide v) { return _mm256_cvtps_ph(_mm512_cvtpd_ps(v), 0); }
static inline shorts narrow_bfloat16(wide v) {
    __m256i floats = _mm256_castps_si256(_mm512_cvtpd_ps(v));
    return _mm256_cvtepi32_epi16(_mm256_srli_epi32(floats, 16));
}
#define FLOATS
static inline line halves_of(floats a, floats b) {
    __m512i low = _mm512_castsi256_si512(_mm512_cvtps_ph(a, 0));
    return _mm512_inserti64x4(low, _mm512_cvtps_ph(b, 0), 1);
}
static inline int any_tie_float16(floats a, floats b) {
    const __m512i rest = _mm512_set1_epi32(0xfff);
    return !_kortestz_mask16_u8(_mm512_testn_epi32_mask(_mm512_castps_si512(a), rest),
                                _mm512_testn_epi32_mask(_mm512_castps_si512(b), rest));
}
static inline floats half_up(floats v) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), half));
}
static inline line uppers_of(floats a, floats b) {
    const __m512i index = _mm512_set_epi32(
        0x3f003d, 0x3b0039, 0x370035, 0x330031, 0x2f002d, 0x2b0029, 0x270025, 0x230021,
        0x1f001d, 0x1b0019, 0x170015, 0x130011, 0xf000d, 0xb0009, 0x70005, 0x30001);
    return _mm512_permutex2var_epi16(_mm512_castps_si512(a), index, _mm512_castps_si512(b));
}
static inline int any_tie_bfloat16(floats a, floats b) {
    const __m512i tie = _mm512_set1_epi32((int)0xffff8000);
    return !_kortestz_mask32_u8(
        _kor_mask32(_mm512_cmpeq_epi16_mask(_mm512_castps_si512(a), tie),
                    _mm512_cmpeq_epi16_mask(_mm512_castps_si512(b), tie)),
        _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q));
}
#elif defined(__x86_64__) && defined(__AVX__)
typedef unsigned long long bits __attribute__((vector_size(32)));
typedef __m128i shorts;
typedef __m256i line;
static inline wide bounded(wide v, double low, double high) {
    return _mm256_min_pd(_mm256_set1_pd(high), _mm256_max_pd(_mm256_set1_pd(low), v));
}
static inline shorts get_shorts(const void *from) { return _mm_loadl_epi64(from); }
static inline void put_shorts(void *to, shorts v) { _mm_storel_epi64(to, v); }
static inline void put_line(void *to, line v, int past) {
    if (past) _mm256_stream_si256(to, v);
    else _mm256_storeu_si256(to, v);
}
static inline wide widen_float16(shorts v) { return _mm256_cvtps_pd(_mm_cvtph_ps(v)); }
static inline wide widen_bfloat16(shorts v) {
    return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), v)));
}
static inline shorts narrow_float16(wide v) { return _mm_cvtps_ph(_mm256_cvtpd_ps(v), 0); }
static inline shorts narrow_bfloat16(wide v) {
    __m128i high = _mm_srli_epi32(_mm_castps_si128(_mm256_cvtpd_ps(v)), 16);
    return _mm_packus_epi32(high, high);
}
#define FLOATS
static inline line halves_of(floats a, floats b) {
    return _mm256_set_m128i(_mm256_cvtps_ph(b, 0), _mm256_cvtps_ph(a, 0));
}
static inline __m256i tie_float16(floats v) {
    __m256i rest = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0xfff));
    return _mm256_cmpeq_epi32(rest, _mm256_setzero_si256());
}
static inline int any_tie_float16(floats a, floats b) {
    return _mm256_movemask_epi8(_mm256_or_si256(tie_float16(a), tie_float16(b)));
}
static inline floats half_up(floats v) {
    const __m256i half = _mm256_set1_epi32(0x8000);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), half));
}
static inline __m256i upper_of(floats v) { return _mm256_srli_epi32(_mm256_castps_si256(v), 16); }
static inline line uppers_of(floats a, floats b) {
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(upper_of(a), upper_of(b)), 0xd8);
}
static inline __m256i tie_bfloat16(floats v) {
    return _mm256_cmpeq_epi16(_mm256_castps_si256(v), _mm256_set1_epi32((int)0xffff8000));
}
static inline int any_tie_bfloat16(floats a, floats b) {
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_UNORD_Q));
    return _mm256_movemask_epi8(
        _mm256_or_si256(nan, _mm256_or_si256(tie_bfloat16(a), tie_bfloat16(b))));
}
#elif defined(__x86_64__) && defined(__SSE4_1__)
typedef unsigned long long bits __attribute__((vector_size(16)));
typedef __m128i shorts, line;
static inline wide bounded(wide v, double low, double high) {
    return _mm_min_pd(_mm_set1_pd(high), _mm_max_pd(_mm_set1_pd(low), v));
}
static inline shorts get_shorts(const void *from) {
    int two;
    memcpy(&two, from, sizeof two);
    return _mm_cvtsi32_si128(two);
}
static inline void put_shorts(void *to, shorts v) {
    int two = _mm_cvtsi128_si32(v);
    memcpy(to, &two, sizeof two);
}
static inline line joined(shorts a, shorts b, shorts c, shorts d) {
    return _mm_unpacklo_epi64(_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
}
static inline void put_line(void *to, line v, int past) {
    if (past) _mm_stream_si128(to, v);
    else _mm_storeu_si128(to, v);
}
#define INTEGER_FLOAT16         /* no instruction converts it */
static inline bits in_lanes(shorts v) { return (bits)_mm_cvtepu16_epi64(v); }
static inline shorts of_lanes(bits v) {
    return _mm_shuffle_epi8((__m128i)v, _mm_set1_epi32(0x09080100));
}
static inline wide widen_bfloat16(shorts v) {
    return _mm_cvtps_pd(_mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), v)));
}
static inline shorts narrow_bfloat16(wide v) {
    __m128i high = _mm_srli_epi32(_mm_castps_si128(_mm_cvtpd_ps(v)), 16);
    return _mm_packus_epi32(high, high);
}
#elif defined(__aarch64__) && defined(__ARM_NEON)
typedef uint64x2_t bits;
typedef uint16x4_t shorts;      /* of which the first two count */
typedef uint16x8_t line;
static inline wide bounded(wide v, double low, double high) {
    return vminq_f64(vdupq_n_f64(high), vmaxq_f64(vdupq_n_f64(low), v));
}
static inline shorts get_shorts(const void *from) {
    unsigned two;
    memcpy(&two, from, sizeof two);
    return vreinterpret_u16_u32(vdup_n_u32(two));
}
static inline void put_shorts(void *to, shorts v) {
    unsigned two = vget_lane_u32(vreinterpret_u32_u16(v), 0);
    memcpy(to, &two, sizeof two);
}
static inline line joined(shorts a, shorts b, shorts c, shorts d) {
    uint32x2_t first = vzip1_u32(vreinterpret_u32_u16(a), vreinterpret_u32_u16(b));
    uint32x2_t next = vzip1_u32(vreinterpret_u32_u16(c), vreinterpret_u32_u16(d));
    return vreinterpretq_u16_u32(vcombine_u32(first, next));
}
static inline void put_line(void *to, line v, int past) { vst1q_u16(to, v); }
static inline wide widen_float16(shorts v) {
    return vcvt_f64_f32(vget_low_f32(vcvt_f32_f16(vreinterpret_f16_u16(v))));
}
static inline wide widen_bfloat16(shorts v) {
    return vcvt_f64_f32(vget_low_f32(vreinterpretq_f32_u32(vshll_n_u16(v, 16))));
}
static inline float32x4_t floats_in(wide v) {
    float32x2_t two = vcvt_f32_f64(v);
    return vcombine_f32(two, two);
}
static inline shorts narrow_float16(wide v) {
    return vreinterpret_u16_f16(vcvt_f16_f32(floats_in(v)));
}
static inline shorts narrow_bfloat16(wide v) {
    return vshrn_n_u32(vreinterpretq_u32_f32(floats_in(v)), 16);
}
#else   /* the compiler's own vectors */
typedef unsigned long long bits;
typedef unsigned short shorts;
typedef struct { shorts each[4]; } line;
static inline wide bounded(wide v, double low, double high) {
    return v < low ? low : v > high ? high : v;
}
static inline shorts get_shorts(const void *from) { return *(const shorts *)from; }
static inline void put_shorts(void *to, shorts v) { *(shorts *)to = v; }
static inline line joined(shorts a, shorts b, shorts c, shorts d) {
    return (line){{a, b, c, d}};
}
static inline void put_line(void *to, line v, int past) { *(line *)to = v; }
#define INTEGER_FLOAT16
static inline bits in_lanes(shorts v) { return v; }
static inline shorts of_lanes(bits v) { return (shorts)v; }
static inline wide widen_bfloat16(shorts v) {
    unsigned whole = (unsigned)v << 16;
    float value;
    memcpy(&value, &whole, sizeof value);
    return value;
}
static inline shorts narrow_bfloat16(wide v) {
    float value = (float)v;
    unsigned whole;
    memcpy(&whole, &value, sizeof whole);
    return (shorts)(whole >> 16);
}
#endif

static inline bits bits_of(wide v) {
    bits same;
    memcpy(&same, &v, sizeof same);
    return same;
}
static inline wide of_bits(bits v) {
    wide same;
    memcpy(&same, &v, sizeof same);
    return same;
}

#define SIGN (1ULL << 63)
#define EXPONENT (0x7ffULL << 52)

#ifdef INTEGER_FLOAT16
/* The exponents of float64 are larger by 1008; that of infinity and NaN has all its bits set. */
static inline wide widen_float16(shorts v) {
    bits all = in_lanes(v), size = all & 0x7fffULL;
    bits special = (size + 0x400ULL) >> 15;
    bits scaled = bits_of(of_bits(size << 42) * 0x1p1008);
    return of_bits(scaled | ((special << 63) - (special << 52)) | ((all & 0x8000ULL) << 48));
}
static inline shorts narrow_float16(wide v) {
    bits sign = bits_of(v) & SIGN;
    bits scaled = bits_of(bounded(of_bits(bits_of(v) ^ sign), 0, 0x1p16) * 0x1p-1008);
    return of_lanes(((scaled >> 42) & 0x7fffULL) | (sign >> 48));
}
#endif

/* The nearest number, to even, that has so many bits behind the point as the type has, or for
 * subnormal ones those of the least exponent. 3/2 of a power of two is added, so large that float64
 * rounds the sum there, and taken off again. Infinity, and what goes there, stays large. */
static inline wide rounded(wide v, double least, double ratio) {
    bits sign = bits_of(v) & SIGN;
    wide large = bounded(of_bits(bits_of(v) & EXPONENT), least, 0x1p200) * ratio;
    wide near = (v + large) - large;
    return of_bits(bits_of(near) | sign);       /* also of 0 */
}
static inline wide round_bfloat16(wide v) { return rounded(v, 0x1p-126, 0x1.8p45); }
#ifdef INTEGER_FLOAT16
static inline wide round_float16(wide v) { return rounded(v, 0x1p-14, 0x1.8p42); }
#else
/* To a float32, and if that is not exact to the odd one: then its own rounding finds no tie that is
 * none. (What is subnormal as float32 is 0 as float16.) */
static inline wide round_float16(wide v) {
    bits rest = (bits){0} + 0x1fffffffULL;
    return of_bits((bits_of(v) | ((bits_of(v) & rest) + rest)) & ~rest);
}
#endif

static inline shorts one_short(unsigned short v) {
    shorts some = {0};
    memcpy(&some, &v, sizeof v);
    return some;
}

/* What float and double have above; a single value, which C converts there; and a strip's worth. */
#define DEFINE_SHORT(type) \
    static inline shorts short_##type(wide v) { return narrow_##type(round_##type(v)); } \
    static inline wide load_##type(const type *from) { return widen_##type(get_shorts(from)); } \
    static inline void store_##type(type *to, wide v) { put_shorts(to, short_##type(v)); } \
    static inline double get_##type(const type *from) { \
        wide v = widen_##type(one_short(from->bits)); \
        double first; \
        memcpy(&first, &v, sizeof first); \
        return first; \
    } \
    static inline void put_##type(type *to, double v) { \
        shorts some = short_##type((wide){v}); \
        memcpy(to, &some, sizeof *to); \
    } \
    DEFINE_LINE(type) \
    static inline void stream_##type(type *to, const wide *v, int past) { \
        put_line(to, line_##type(v), past); \
    }

#ifdef FLOATS
/* By way of float32, as processors do it: that is wrong only where the float32 is a tie that the
 * float64 is not, one of 65,536 values. If one of a strip may be a tie, all are rounded before. (A
 * subnormal float16 that is one ends in more zeros than others, as do exact values.) In bfloat16
 * halves can then go up, as it is no tie; a NaN's bits might overflow, and count as one. */
#define away_float16(v) (v)
#define away_bfloat16(v) half_up(v)
#define joined_float16 halves_of
#define joined_bfloat16 uppers_of
#define DEFINE_LINE(type) \
    static inline line line_##type(const wide *v) { \
        floats a = floats_of(v), b = floats_of(v + 2); \
        if (__builtin_expect(any_tie_##type(a, b), 0)) { \
            wide safe[4] = {round_##type(v[0]), round_##type(v[1]), \
                            round_##type(v[2]), round_##type(v[3])}; \
            return joined_##type(floats_of(safe), floats_of(safe + 2)); \
        } \
        return joined_##type(away_##type(a), away_##type(b)); \
    }
#else
#define DEFINE_LINE(type) \
    static inline line line_##type(const wide *v) { \
        return joined(short_##type(v[0]), short_##type(v[1]), \
                      short_##type(v[2]), short_##type(v[3])); \
    }
#endif
DEFINE_SHORT(float16)
DEFINE_SHORT(bfloat16)

#endif
