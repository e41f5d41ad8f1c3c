/* The activations: one row of a table each. All is float64, on so many neighbouring values, by
 * additions, multiplications, divisions and comparisons alone: the same bits everywhere. */
#ifndef CYBN_ACTIVATIONS_H
#define CYBN_ACTIVATIONS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    double slope;     /* below 0 */
    double highest;   /* above that it is constant; NaN: nowhere */
    double low, high; /* what is not above low is stored as 0, and from high on as the highest */
} Limits;

typedef struct {
    const char *name;
    int by_result;  /* its result decides the derivative, else v does */
    int has_slope;
    int clips;      /* to 0 and highest: loops have that inlined */
    double highest;
    void (*value)(double *v, size_t n, const Limits *limits);
    /* g, that of the loss with respect to the result, becomes that with respect to v. `w` is v, or
     * where the result decides, that. */
    void (*differentiate)(const double *w, double *g, size_t n, const Limits *limits);
} Activation;

/* What is stored as -0.0 stays that, as if it had been stored before. */
static inline void clip(double *v, size_t n, double highest, double low) {
    for (size_t i = 0; i < n; i++) {
        double result = v[i] > highest ? highest : v[i];
        v[i] = v[i] < -low ? 0 : result;
    }
}

static inline void clip_back(const double *w, double *g, size_t n, double low, double high) {
    for (size_t i = 0; i < n; i++) {
        double result = w[i] >= high ? 0 : g[i];
        g[i] = w[i] <= low ? 0 : result;
    }
}

static void clipped(double *v, size_t n, const Limits *limits) {
    clip(v, n, limits->highest, limits->low);
}

static void clipped_back(const double *w, double *g, size_t n, const Limits *limits) {
    clip_back(w, g, n, limits->low, limits->high);
}

/* exp(x) for x <= 0, with an error below 2e-16 of it; 0 below -708.
 * x = k ln 2 + r with |r| <= ln(2) / 2, and exp(r) by its Taylor series: the first term that is
 * left out is r**14 / 14! < 5e-18. */
static inline double exp_of_negative(double x) {
    const double to_integer = 0x1.8p52; /* added to a double, it leaves its integer in the last bits */
    double low = x < -708 ? -708 : x;
    double shifted = low * 0x1.71547652b82fep0 + to_integer;
    double k = shifted - to_integer;
    double r = (low - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1;
    p = p * r + 1;
    int64_t bits, steps;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&steps, &shifted, sizeof steps);
    bits += (int64_t)((uint64_t)steps << 52);
    memcpy(&p, &bits, sizeof p);
    return x < -708 ? 0 : p;
}

/* 1 / (1 + exp(-v)), and what is missing to 1. */
static inline void sigmoid(double v, double *s, double *rest) {
    double e = exp_of_negative(v < 0 ? v : -v);
    double large = 1 / (1 + e), small = e / (1 + e);
    *s = v < 0 ? small : large;
    *rest = v < 0 ? large : small;
}

static void leaky_relu(double *v, size_t n, const Limits *limits) {
    for (size_t i = 0; i < n; i++) {
        double below = v[i] * limits->slope;
        v[i] = v[i] < 0 ? below : v[i];
    }
}

static void leaky_relu_back(const double *w, double *g, size_t n, const Limits *limits) {
    for (size_t i = 0; i < n; i++) {
        double below = g[i] * limits->slope;
        g[i] = w[i] <= limits->low ? below : g[i];
    }
}

/* v * min(max(v + 3, 0), 6) / 6 */
static void hardswish(double *v, size_t n, const Limits *limits) {
    (void)limits;
    for (size_t i = 0; i < n; i++) {
        double between = v[i] * (v[i] + 3) / 6;
        double result = v[i] >= 3 ? v[i] : between;
        v[i] = v[i] <= -3 ? 0 : result;
    }
}

static void hardswish_back(const double *w, double *g, size_t n, const Limits *limits) {
    (void)limits;
    for (size_t i = 0; i < n; i++) {
        double between = g[i] * ((2 * w[i] + 3) / 6);
        double result = w[i] >= 3 ? g[i] : between;
        g[i] = w[i] <= -3 ? 0 : result;
    }
}

/* v / (1 + exp(-v)) */
static void silu(double *v, size_t n, const Limits *limits) {
    (void)limits;
    for (size_t i = 0; i < n; i++) {
        double s, rest;
        sigmoid(v[i], &s, &rest);
        v[i] *= s;
    }
}

static void silu_back(const double *w, double *g, size_t n, const Limits *limits) {
    (void)limits;
    for (size_t i = 0; i < n; i++) {
        double s, rest;
        sigmoid(w[i], &s, &rest);
        g[i] *= s + w[i] * (s * rest);
    }
}

static const Activation ACTIVATIONS[] = {
    {"relu", 1, 0, 1, NAN, clipped, clipped_back},
    {"relu6", 1, 0, 1, 6, clipped, clipped_back},
    {"leaky_relu", 1, 1, 0, NAN, leaky_relu, leaky_relu_back},
    {"hardswish", 0, 0, 0, NAN, hardswish, hardswish_back},
    {"silu", 0, 0, 0, NAN, silu, silu_back},
};
#define ACTIVATION_COUNT ((int)(sizeof ACTIVATIONS / sizeof *ACTIVATIONS))

#endif
