/* Numbers of 16 bit, for convert.h: read exactly, and rounded once, from float64 to the nearest and
 * of two as near to the even one. By float64's and float32's arithmetic alone: processors' own ways
 * to bfloat16 flush subnormal numbers, or go by way of float32 and round twice. */
#ifndef CYBN_HALF_H
#define CYBN_HALF_H

typedef struct { unsigned short bits; } float16;
typedef struct { unsigned short bits; } bfloat16;       /* the upper half of a float32 */

typedef float all_floats __attribute__((vector_size(REGISTER)));
typedef unsigned all_words __attribute__((vector_size(REGISTER)));
typedef short all_shorts __attribute__((vector_size(REGISTER)));

/* Read: the numbers of 16 bit that a `wide` takes, as integers of 32 bit. */
typedef unsigned words __attribute__((vector_size(REGISTER > 32 ? 32 : 16)));
typedef float parts __attribute__((vector_size(sizeof(words))));
#ifdef WHOLE
#define words_at(from) (words)HALF(cvtepu16_epi32)(shorts_at(from))
static inline wide widened(parts v) { return WHOLE(cvtps_pd)(v); }
#else
#define words_at(from) (words){(from)[0].bits, (from)[1].bits}
#define uppers_at(from) (words_at(from) << 16)
static inline wide widened(parts v) { return (wide){v[0], v[1]}; }
#endif

static inline wide load_bfloat16(const bfloat16 *from) { return widened((parts)uppers_at(from)); }
static inline double get_bfloat16(const bfloat16 *from) {
    return ((parts)((words){from->bits} << 16))[0];
}

/* Rounded to 13 bits, and if that is not exact to the odd one of the two: what rounds that again
 * finds no tie that was none (S. Boldo and G. Melquiond, "When double rounding is odd"). And it is
 * exact as float32, but for what is too large or too small in 16 bit, too. */
static inline wide odd(wide v) {
    const longs rest = (longs){0} + 0xffffffffffULL;
    return (wide)(((longs)v | (((longs)v & rest) + rest)) & ~rest);
}

/* float32 without so many of its bits: rounded to the nearest and to even; of NaN they are cut. */
static inline all_words without(int count, all_words v) {
    const unsigned unit = 1u << count;
    all_words almost_half = (v >> count & 1) + (unit / 2 - 1);
    return (v + (almost_half & (all_words)((all_floats)v == (all_floats)v))) & -unit;
}

/* Whether of two registers of float32 any is a tie, or may be: a subnormal float16 that is one ends
 * in more zeros than others, as do exact values. In bfloat16 NaN count, too. (With AVX-512 gcc would
 * turn each comparison's mask into a vector, and these into a mask again.) */
#if REGISTER == 64
static inline int any_tie_float16(all_words a, all_words b) {
    const __m512i rest = _mm512_set1_epi32(0xfff);
    return !_kortestz_mask16_u8(_mm512_testn_epi32_mask((__m512i)a, rest),
                                _mm512_testn_epi32_mask((__m512i)b, rest));
}
static inline int any_tie_bfloat16(all_words a, all_words b) {
    const __m512i tie = _mm512_set1_epi32((int)0xffff8000);
    return !_kortestz_mask32_u8(_kor_mask32(_mm512_cmpeq_epi16_mask((__m512i)a, tie),
                                            _mm512_cmpeq_epi16_mask((__m512i)b, tie)),
                                _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q));
}
#else
static inline int any_tie_float16(all_words a, all_words b) {
    return any_of((all_words)((a & 0xfff) == 0) | (all_words)((b & 0xfff) == 0));
}
static inline int any_tie_bfloat16(all_words a, all_words b) {
    const all_shorts tie = (all_shorts)((all_words){0} + 0xffff8000);
    all_floats sum = (all_floats)a + (all_floats)b;     /* also NaN of infinities */
    return any_of((all_words)((all_shorts)a == tie) | (all_words)((all_shorts)b == tie)
               | (all_words)(sum != sum));
}
#endif

/* Half a unit is added. That is wrong only for ties, and where it reaches the sign, for NaN. */
static inline wide line_of_bfloat16(all_words low, all_words high) {
    return (wide)uppers(low + 0x8000, high + 0x8000);
}
static inline all_words settled_bfloat16(all_words v) { return without(16, v); }
static inline all_words settled_float16(all_words v) { return v; }

#if defined(WHOLE) && defined(__F16C__)
static inline wide load_float16(const float16 *from) {
    return WHOLE(cvtps_pd)(HALF(cvtph_ps)(shorts_at(from)));
}
static inline double get_float16(const float16 *from) { return _cvtsh_ss(from->bits); }
static inline wide line_of_float16(all_words low, all_words high) {
    return (wide)joined(WHOLE(cvtps_ph)((all_floats)low, 0), WHOLE(cvtps_ph)((all_floats)high, 0));
}
#else
/* float32 has 13 bits more, and exponents that are larger by 112. */
static inline wide widen_float16(words v) {
    words size = (v & 0x7fff) << 13, special = (words)(size >= 0x7c00u << 13) & 0xffu << 23;
    return widened((parts)((words)((parts)size * 0x1p112f) | special | (v & 0x8000) << 16));
}
static inline wide load_float16(const float16 *from) { return widen_float16(words_at(from)); }
static inline double get_float16(const float16 *from) {
    return widen_float16((words){from->bits})[0];
}
static inline all_words upper_float16(all_words v) {
    all_words size = v & 0x7fffffff, large = (all_words)((all_floats)size > 0x1p16f);
    all_words subnormal = (all_words)((all_floats)size < 0x1p-14f);
    all_words units = (all_words)((all_floats)size + 0.5f) << 16;       /* of 2**-24 */
    size = (size & ~large) | (large & 143u << 23);      /* 2**16, which becomes infinity */
    size = without(13, (all_words)((all_floats)size * 0x1p-112f)) << 3 & 0x7fffffff;
    return (size & ~subnormal) | (units & subnormal) | (v & 0x80000000);
}
static inline wide line_of_float16(all_words low, all_words high) {
    return (wide)uppers(upper_float16(low), upper_float16(high));
}
#endif

/* Written: a strip at once, or the first numbers of one. To round to float32 first is wrong only
 * where that makes a tie, one of 65,536 values. If a strip may have one, all are rounded again. */
#define DEFINE_STORE(type) \
    static inline wide line_##type(const wide *v) { \
        all_words low = (all_words)floats_of(v[0], v[1]); \
        all_words high = (all_words)floats_of(v[2], v[3]); \
        if (__builtin_expect(any_tie_##type(low, high), 0)) { \
            low = settled_##type((all_words)floats_of(odd(v[0]), odd(v[1]))); \
            high = settled_##type((all_words)floats_of(odd(v[2]), odd(v[3]))); \
        } \
        return line_of_##type(low, high); \
    } \
    static inline void stream_##type(type *to, const wide *v, int past) { \
        if (past) stream(to, line_##type(v)); \
        else *(wide_at *)to = line_##type(v); \
    } \
    static inline void store_##type(type *to, wide v) { \
        wide some = line_##type((wide[4]){v}); \
        memcpy(to, &some, STEP * sizeof *to); \
    } \
    static inline void put_##type(type *to, double v) { \
        wide some = line_##type((wide[4]){{v}}); \
        memcpy(to, &some, sizeof *to); \
    }
DEFINE_STORE(float16)
DEFINE_STORE(bfloat16)

#endif
