# Leaf arithmetic on rows of lanes. Every loop below runs over neighbouring elements, without a
# branch, so that the compiler turns it into vector code at each level. All arithmetic is float64;
# a result is rounded once, when it is stored as `real`.

cdef extern from "cache.h" nogil:
    void prefetch(const void* address, size_t size) noexcept

ctypedef fused real:
    float
    double

# A strip of 32 lanes keeps its sums in registers, whatever the number of rows.
cdef enum:
    LANES = 32


cdef inline void sum_strip(
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t ahead, const double* shift_u, const double* shift_v, double* sum_u, double* sum_uv,
) noexcept nogil:
    """Add a = u - shift_u to sum_u, and a * (v - shift_v) to sum_uv, lane by lane, row after row.

    `ahead` is the distance to what is read next: hardware does not guess strided strips.
    """
    cdef double a[LANES]
    cdef double ab[LANES]
    cdef double d
    cdef Py_ssize_t _, j
    for j in range(width):
        a[j] = sum_u[j]
        ab[j] = sum_uv[j]
    for _ in range(rows):
        prefetch(u + ahead, LANES * sizeof(real))
        if u != v:
            prefetch(v + ahead, LANES * sizeof(real))
        for j in range(width):
            d = u[j] - shift_u[j]
            a[j] += d
            ab[j] += d * (v[j] - shift_v[j])
        u += stride
        v += stride
    for j in range(width):
        sum_u[j] = a[j]
        sum_uv[j] = ab[j]


cdef inline void normalize(
    const real* x, real* out, Py_ssize_t length, const double* mean, const double* slope,
    const double* offset, Py_ssize_t step,
) noexcept nogil:
    """out = (x - mean) * slope + offset; step 1: a coefficient per lane, step 0: one for all."""
    cdef Py_ssize_t j
    for j in range(length):
        out[j] = <real>((x[j] - mean[j * step]) * slope[j * step] + offset[j * step])


cdef inline void differentiate(
    const real* x, const real* dy, real* out, Py_ssize_t length, const double* mean,
    const double* slope, const double* center, const double* scale, Py_ssize_t step,
) noexcept nogil:
    """out = (x - mean) * slope + (dy - center) * scale."""
    cdef Py_ssize_t j
    for j in range(length):
        out[j] = <real>((x[j] - mean[j * step]) * slope[j * step]
                        + (dy[j] - center[j * step]) * scale[j * step])


cdef inline void halve(double* lanes, Py_ssize_t groups, Py_ssize_t width) noexcept nogil:
    """Sum `groups` groups of `width` lanes into the first group, by a tree of fixed shape."""
    cdef Py_ssize_t half, j
    while groups > 1:
        half = (groups + 1) // 2
        for j in range((groups - half) * width):
            lanes[j] += lanes[half * width + j]
        groups = half
