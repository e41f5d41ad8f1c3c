# Leaf arithmetic on rows of lanes. Every loop below runs over neighbouring elements, without a
# branch that depends on them, so that the compiler turns it into vector code at each level. All
# arithmetic is float64; a result is rounded once, when it is stored as `real`.
#
# NULL: a shift of 0, a weight of 1, no mask. Where a caller writes it, the inlined loop has none.

cdef extern from "cache.h" nogil:
    void prefetch(const void* address, size_t size) noexcept

ctypedef fused real:
    float
    double

# A strip of 32 lanes keeps its sums in registers, whatever the number of rows.
cdef enum:
    LANES = 32

ctypedef const unsigned char* Mask      # 0 where a value is left out

cdef struct Factor:                     # of what is summed: (value - shift) * weight
    const double* shift
    const double* weight
    Py_ssize_t row_step, lane_step      # to the next row's and the next lane's


cdef inline double term(double value, Factor of, Py_ssize_t lane) noexcept nogil:
    if of.shift != NULL:
        value -= of.shift[lane * of.lane_step]
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

    `ahead` is the distance to what is read next: hardware does not guess strided strips.
    """
    cdef double a[LANES]
    cdef double ab[LANES]
    cdef float selected[LANES]
    cdef double d, product
    cdef bint masked = mask != NULL
    cdef Py_ssize_t _, j
    for j in range(width):
        a[j] = sum_u[j]
        ab[j] = sum_uv[j]
    for _ in range(rows):
        prefetch(u + ahead, LANES * sizeof(real))
        if u != v:
            prefetch(v + ahead, LANES * sizeof(real))
        if masked:      # widened first: bytes and float64 in one loop are not vectorized
            for j in range(width):
                selected[j] = mask[j]
            mask += stride
        for j in range(width):
            d = term(u[j], of_u, j)
            product = d * term(v[j], of_v, j)
            a[j] += d if not masked or selected[j] != 0 else 0
            ab[j] += product if not masked or selected[j] != 0 else 0
        u += stride
        v += stride
        of_u = moved(of_u, of_u.row_step)
        of_v = moved(of_v, of_v.row_step)
    for j in range(width):
        sum_u[j] = a[j]
        sum_uv[j] = ab[j]


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


cdef inline void normalize(const real* x, real* out, Py_ssize_t n, Coefficients k) noexcept nogil:
    """out = (x - mean) * (slope * gamma) + center, or + beta."""
    cdef Py_ssize_t j, i
    cdef double slope, center
    for j in range(n):
        i = j * k.step
        slope = k.slope[i] if k.gamma == NULL else k.slope[i] * k.gamma[j]
        center = k.center[i] if k.gamma == NULL else k.beta[j]
        out[j] = <real>((x[j] - k.mean[i]) * slope + center)


cdef inline void differentiate(
    const real* x, const real* dy, real* out, Py_ssize_t n, Coefficients k,
) noexcept nogil:
    """out = (x - mean) * slope + (dy * (scale * gamma) - center)."""
    cdef Py_ssize_t j, i
    cdef double scale
    for j in range(n):
        i = j * k.step
        scale = k.scale[i] if k.gamma == NULL else k.scale[i] * k.gamma[j]
        out[j] = <real>((x[j] - k.mean[i]) * k.slope[i] + (dy[j] * scale - k.center[i]))


cdef inline void clear(real* out, Py_ssize_t n, Mask mask) noexcept nogil:
    """Set to 0 what the mask leaves out."""
    cdef Py_ssize_t j
    cdef real value
    for j in range(n):
        value = out[j]
        out[j] = value if mask[j] else 0


cdef inline void halve(double* lanes, Py_ssize_t groups, Py_ssize_t width) noexcept nogil:
    """Sum `groups` groups of `width` lanes into the first group, by a tree of fixed shape."""
    cdef Py_ssize_t half, j
    while groups > 1:
        half = (groups + 1) // 2
        for j in range((groups - half) * width):
            lanes[j] += lanes[half * width + j]
        groups = half
