# Leaf arithmetic on rows of lanes. Every loop below runs over neighbouring elements, without a
# branch that depends on them, so that the compiler turns it into vector code at each level. All
# arithmetic is float64: values are widened first, and rounded once, when they are stored.
#
# NULL: a shift of 0, a weight of 1, no mask. Where a caller writes it, the inlined loop has none.

from libc.string cimport memcpy

cdef extern from "cache.h" nogil:
    void prefetch(const void* address, size_t size) noexcept
    size_t to_line(const void* address) noexcept

cdef extern from "convert.h" nogil:
    enum:
        STRIP           # lanes that are worked on at once: from 8 to LANES
    double difference(double a, double b) noexcept
    void widen(const void* values, double* to, size_t n) noexcept   # of any `real`, or a Mask
    void narrow(const double* values, void* to, size_t n, bint stream) noexcept     # to any

ctypedef fused real:
    float
    double

cdef enum:
    LANES = 32          # of a row along; narrow rows are folded to multiples of it
    LINE = 8            # doubles of a cache line

ctypedef const unsigned char* Mask      # 0 where a value is left out

cdef struct Factor:                     # of what is summed: (value - shift) * weight
    const double* shift
    const double* weight
    Py_ssize_t row_step, lane_step      # to the next row's and the next lane's


cdef inline double term(double value, Factor of, Py_ssize_t lane) noexcept nogil:
    if of.shift != NULL:
        value = difference(value, of.shift[lane * of.lane_step])
    if of.weight != NULL:
        value *= of.weight[lane * of.lane_step]
    return value


cdef inline Factor moved(Factor of, Py_ssize_t by) noexcept nogil:
    if of.shift != NULL:
        of.shift += by
    if of.weight != NULL:
        of.weight += by
    return of


cdef inline void sum_strip(
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t ahead, Factor of_u, Factor of_v, Mask mask, double* sum_u, double* sum_uv,
) noexcept nogil:
    """Add the terms of u to sum_u, and their products with those of v to sum_uv, row after row.

    `ahead` is the distance to what is read next, or 0: hardware does not guess strided strips.
    """
    cdef double a[STRIP]
    cdef double ab[STRIP]
    cdef double shift[STRIP]
    cdef double wide_u[STRIP]
    cdef double wide_v[STRIP]
    cdef double selected[STRIP]
    cdef double d, product
    cdef bint masked = mask != NULL
    cdef Py_ssize_t _, j
    if of_v.lane_step:      # the same in all rows
        widen(of_v.shift, shift, width)
        of_v.shift = shift
        if of_u.shift != NULL:
            of_u.shift = shift
    widen(sum_u, a, width)
    widen(sum_uv, ab, width)
    for _ in range(rows):
        if ahead:
            prefetch(u + ahead, width * sizeof(real))
        if ahead and u != v:
            prefetch(v + ahead, width * sizeof(real))
        if masked:
            widen(mask, selected, width)
            mask += stride
        widen(u, wide_u, width)
        widen(v, wide_v, width)
        for j in range(width):
            d = term(wide_u[j], of_u, j)
            product = d * term(wide_v[j], of_v, j)
            a[j] += d if not masked or selected[j] != 0 else 0
            ab[j] += product if not masked or selected[j] != 0 else 0
        u += stride
        v += stride
        of_u = moved(of_u, of_u.row_step)
        of_v = moved(of_v, of_v.row_step)
    narrow(a, sum_u, width, False)
    narrow(ab, sum_uv, width, False)


cdef struct Coefficients:               # of the map
    const double* mean                  # these have a value per lane, or one for all
    const double* slope
    const double* center
    const double* scale
    Py_ssize_t step                     # 1 or 0 accordingly
    const double* gamma                 # these have a value per lane
    const double* beta


cdef inline Coefficients advanced(Coefficients k, Py_ssize_t lanes) noexcept nogil:
    k.mean += lanes * k.step
    k.slope += lanes * k.step
    k.center += lanes * k.step
    k.scale += lanes * k.step
    if k.gamma != NULL:
        k.gamma += lanes
        k.beta += lanes
    return k


cdef inline void normalize(double* x, Py_ssize_t n, Coefficients k) noexcept nogil:
    """x becomes (x - mean) * (slope * gamma) + center, or + beta."""
    cdef Py_ssize_t j, i
    cdef double slope, center
    for j in range(n):
        i = j * k.step
        slope = k.slope[i] if k.gamma == NULL else k.slope[i] * k.gamma[j]
        center = k.center[i] if k.gamma == NULL else k.beta[j]
        x[j] = difference(x[j], k.mean[i]) * slope + center


cdef inline void differentiate(
    double* x, const double* dy, Py_ssize_t n, Coefficients k,
) noexcept nogil:
    """x becomes (x - mean) * slope + (dy * (scale * gamma) - center)."""
    cdef Py_ssize_t j, i
    cdef double scale
    for j in range(n):
        i = j * k.step
        scale = k.scale[i] if k.gamma == NULL else k.scale[i] * k.gamma[j]
        x[j] = (difference(x[j], k.mean[i]) * k.slope[i]
                + difference(dy[j] * scale, k.center[i]))


cdef inline void clear(double* values, Py_ssize_t n, Mask mask) noexcept nogil:
    """Set to 0 what the mask leaves out."""
    cdef double selected[STRIP]
    cdef Py_ssize_t j
    cdef double value
    widen(mask, selected, n)
    for j in range(n):
        value = values[j]
        values[j] = value if selected[j] != 0 else 0


cdef inline void add_next(double* lanes, Py_ssize_t count, Py_ssize_t distance) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(count):
        lanes[j] += lanes[distance + j]


cdef inline void halve(double* lanes, Py_ssize_t groups, Py_ssize_t width) noexcept nogil:
    """Sum `groups` groups of `width` lanes into the first group, by a tree of fixed shape."""
    cdef Py_ssize_t half
    if groups == LANES and width == 1:      # the usual tree, unrolled
        add_next(lanes, 16, 16)
        add_next(lanes, 8, 8)
        add_next(lanes, 4, 4)
        add_next(lanes, 2, 2)
        add_next(lanes, 1, 1)
        return
    while groups > 1:
        half = (groups + 1) // 2
        add_next(lanes, (groups - half) * width, half * width)
        groups = half


cdef inline void repeat(double* values, Py_ssize_t count, Py_ssize_t kept) noexcept nogil:
    """Give all values those of the first, again and again."""
    while kept < count:
        memcpy(values + kept, values, min(kept, count - kept) * sizeof(double))
        kept *= 2


cdef inline double* on_line(double* values) noexcept nogil:
    """The first of the values that begins a cache line: vectors then lie in one line each."""
    return values + to_line(values) // sizeof(double)
