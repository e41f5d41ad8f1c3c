/* How fast could it be? The arithmetic of the kernels, in bare loops over one array: float32 read
 * and written, everything in between in float64, and no FMA but for differences. Needs AVX-512.
 *
 *     gcc -O3 -march=native -ffp-contract=off bench/arithmetic.c -o /tmp/arithmetic && /tmp/arithmetic
 *
 * Prints nanoseconds for 1000 values, the best of 25 rounds, by the size of an array. */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LOAD(p) _mm512_cvtps_pd(_mm256_loadu_ps(p))
#define STORE(p, v) _mm256_storeu_ps(p, _mm512_cvtpd_ps(v))
#define SET(v) _mm512_set1_pd(v)

static volatile double sink;
static const double mean = 0.5, slope = 1.1, center = 0.25, scale = 1.2;

static __m512d minus(__m512d a, __m512d b) { return _mm512_fmsub_pd(a, SET(1), b); }

/* sums of dy and dy * (x - mean), or of x - mean and its square */
static __attribute__((noinline)) double sums(const float *x, const float *dy, float *out, size_t n) {
    __m512d a[4] = {0}, ab[4] = {0};
    (void)out;
    for (size_t j = 0; j < n; j += 32)
        for (int i = 0; i < 4; i++) {
            __m512d e = minus(LOAD(x + j + 8 * i), SET(mean));
            __m512d d = dy ? LOAD(dy + j + 8 * i) : e;
            a[i] = _mm512_add_pd(a[i], d);
            ab[i] = _mm512_add_pd(ab[i], _mm512_mul_pd(d, e));
        }
    double total = 0;
    for (int i = 0; i < 4; i++) total += _mm512_reduce_add_pd(_mm512_add_pd(a[i], ab[i]));
    return total;
}

/* (x - mean) * slope + (dy * scale - center), or without dy */
static __attribute__((noinline)) double map(const float *x, const float *dy, float *out, size_t n) {
    for (size_t j = 0; j < n; j += 32)
        for (int i = 0; i < 4; i++) {
            __m512d y = _mm512_mul_pd(minus(LOAD(x + j + 8 * i), SET(mean)), SET(slope));
            __m512d rest = SET(center);
            if (dy) rest = minus(_mm512_mul_pd(LOAD(dy + j + 8 * i), SET(scale)), SET(center));
            STORE(out + j + 8 * i, _mm512_add_pd(y, rest));
        }
    return 0;
}

typedef double loop(const float *, const float *, float *, size_t);

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double best(loop *f, const float *x, const float *dy, float *out, size_t n) {
    size_t calls = (1 << 22) / n + 1;
    double least = 1;
    for (int round = 0; round < 25; round++) {
        double start = seconds();
        for (size_t i = 0; i < calls; i++) sink = f(x, dy, out, n);
        double taken = (seconds() - start) / calls;
        if (taken < least) least = taken;
    }
    return least / n * 1e12;
}

int main(void) {
    puts("array    training: sums    map    backward: sums    map   (ns for 1000 values)");
    for (size_t kb = 8; kb <= 2048; kb *= 4) {
        size_t n = kb * 256;
        float *x = aligned_alloc(4096, 3 * (n * 4 + 4096)), *dy = x + n + 256, *out = dy + n + 384;
        for (size_t i = 0; i < n; i++) x[i] = dy[i] = out[i] = i % 7;
        printf("%4zu KB %16.0f %6.0f %17.0f %6.0f\n", kb, best(sums, x, NULL, out, n),
               best(map, x, NULL, out, n), best(sums, x, dy, out, n), best(map, x, dy, out, n));
        free(x);
    }
    return 0;
}
