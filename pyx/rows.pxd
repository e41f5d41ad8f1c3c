# Leaf arithmetic on rows of lanes. Every loop below runs over neighbouring elements, without a
# branch that depends on them, so that the compiler turns it into vector code at each level. All
# arithmetic is float64: values are widened first, and rounded once, when they are stored.
#
# NULL: no weight, no columns, no mask. Where a caller writes it, the inlined loop has none.

from libc.string cimport memcpy

cdef extern from "cache.h" nogil:
    void prefetch(const void* address, size_t size) noexcept
    size_t to_line(const void* address) noexcept

cdef extern from "thread.h" nogil:
    enum:
        THREAD_SCRATCH          # doubles
    double* thread_lanes() noexcept     # five rows of APART lanes, and two lines
    double* thread_scratch() noexcept

cdef extern from "convert.h" nogil:
    ctypedef struct float16:
        unsigned short bits
    ctypedef struct bfloat16:
        unsigned short bits
    enum:
        VECTOR          # values that are mapped at once: those of two registers, at the most STRIP
        STRIP           # lanes that are summed at once: from 8 to LANES
    const void* not_null(const void* pointer) noexcept
    double difference(double a, double b) noexcept
    void widen(const void* values, double* to, size_t n) noexcept   # of any `real`, or a Mask
    void narrow(const double* values, void* to, size_t n, bint stream) noexcept     # to any

cdef extern from "activations.h" nogil:
    ctypedef struct Limits:
        double slope, highest, low, high
    ctypedef struct Activation:
        const char* name
        bint by_result, has_slope, clips
        double highest
        void value(double* v, size_t n, const Limits* limits) noexcept nogil
        void differentiate(
            const double* w, double* g, size_t n, const Limits* limits) noexcept nogil
    const Activation* ACTIVATIONS
    int ACTIVATION_COUNT
    void clip(double* v, size_t n, double highest, double low) noexcept
    void clip_back(const double* w, double* g, size_t n, double low, double high) noexcept

ctypedef fused real:
    float
    double
    float16
    bfloat16

cdef enum:
    LANES = 32          # of a row along; narrow rows are folded to multiples of it
    LINE = 8            # doubles of a cache line

ctypedef const unsigned char* Mask      # 0 where a value is left out

cdef struct Fused:                      # what comes after the norm: y = act(norm(x) + residual)
    const Activation* activation        # or NULL
    Limits limits                       # of it
    bint training
    # Of x's shape, or NULL: the residual; in backward, where the result decides the derivative,
    # the result instead.
    const char* third
    char* dresidual                     # or NULL
    bint third_is_float                 # not of x's dtype
    bint dresidual_is_float
    bint dresidual_streams              # whole lines of it past the caches
    bint is_early                       # dresidual is written with the sums, and mapped as dy
    const void* u                       # the first value of what is summed, and of what is written
    const void* out


cdef struct Terms:                      # what is summed of u and v
    const double* shift                 # of v, or if it is NULL of u: a value per lane
    const double* weight                # of u: a value per place, that is, also per row; or NULL
    double* column_u                    # sums over the cells, one per place; or NULL
    double* column_uv
    double column_weight                # of v, there
    const Fused* fused                  # what u comes through first; or NULL
    int how                             # it is fused
    const double* slope                 # of the norm, a value per lane
    const double* beta


cdef inline Py_ssize_t bytes_of(const real* x, bint is_float, Py_ssize_t n) noexcept nogil:
    return n * (sizeof(float) if is_float else sizeof(real))


cdef inline void prefetch_beside(
    const real* x, const char* array, bint is_float, Py_ssize_t place, Py_ssize_t n,
) noexcept nogil:
    prefetch(array + bytes_of(x, is_float, place), bytes_of(x, is_float, n))


cdef inline void widen_third(
    const real* x, const Fused* fused, Py_ssize_t place, double* to, Py_ssize_t n,
) noexcept nogil:
    cdef const char* third = fused.third + bytes_of(x, fused.third_is_float, place)
    if fused.third_is_float:
        widen(<const float*>third, to, n)
    else:
        widen(<const real*>third, to, n)


cdef inline void give_residual(
    const real* x, const double* g, Py_ssize_t n, const Fused* fused, Py_ssize_t place,
    bint stream,
) noexcept nogil:
    """Store what the residual gets."""
    cdef char* to = fused.dresidual + bytes_of(x, fused.dresidual_is_float, place)
    if fused.dresidual_is_float:
        narrow(g, <float*>to, n, False)
    elif stream:
        narrow(g, <real*>to, n, True)
    else:
        narrow(g, <real*>to, n, False)


cdef enum:              # how a call is fused, where that is a constant in the loop; else 0
    CLIPPED = 1         # by an activation that clips, without a residual
    ADDED = 2           # by one that clips, with a residual


cdef inline void finish(
    const real* x, double* values, Py_ssize_t n, const Fused* fused, int how, Py_ssize_t place,
) noexcept nogil:
    """norm(x) becomes act(norm(x) + residual)."""
    cdef double residual[STRIP]
    cdef Py_ssize_t j
    if how == ADDED or (how == 0 and fused.third != NULL):
        widen_third(x, fused, place, residual, n)
        for j in range(n):
            values[j] += residual[j]
    if how != 0:
        clip(values, n, fused.limits.highest, fused.limits.low)
    elif fused.activation != NULL:
        fused.activation.value(values, n, &fused.limits)


cdef inline void go_back(
    const real* x, const double* values, double* g, Py_ssize_t n, const Fused* fused, int how,
    Py_ssize_t place, const double* mean, const double* slope, const double* beta, Py_ssize_t step,
) noexcept nogil:
    """The gradient with respect to y becomes that with respect to norm(x) + residual.

    `values` are those of x. Either the result decides it, as it was stored, or what was activated.
    """
    cdef double w[STRIP]
    cdef double residual[STRIP]
    cdef Py_ssize_t j
    if how == 0 and fused.activation == NULL:
        return
    if how == ADDED or (how == 0 and fused.activation.by_result and fused.third != NULL):
        widen_third(x, fused, place, w, n)
    else:
        for j in range(n):
            w[j] = difference(values[j], mean[j * step]) * slope[j * step] + beta[j * step]
        if how == 0 and fused.third != NULL:
            widen_third(x, fused, place, residual, n)
            for j in range(n):
                w[j] += residual[j]
    if how != 0:
        clip_back(w, g, n, fused.limits.low, fused.limits.high)
    else:
        fused.activation.differentiate(w, g, n, &fused.limits)


cdef inline Terms below(Terms t, Py_ssize_t places) noexcept nogil:
    """So many values further; what a lane has stays."""
    if t.weight != NULL:
        t.weight += places
    if t.column_u != NULL:
        t.column_u += places
        t.column_uv += places
    return t


cdef inline Terms beside(Terms t, Py_ssize_t lanes) noexcept nogil:
    t.shift += lanes
    if t.fused != NULL:
        t.slope += lanes
        t.beta += lanes
    return below(t, lanes)


cdef inline void sum_strip(
    const real* u, const real* v, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t width,
    Py_ssize_t ahead, Terms t, Mask mask, double* sum_u, double* sum_uv,
) noexcept nogil:
    """Add u * weight to sum_u, and its product with v - shift to sum_uv, row after row.

    Where v is NULL these are u - shift and its square. To the columns add u, and its product with
    (v - shift) * column_weight. `ahead` is the distance to what is read next, or 0.
    """
    cdef double a[STRIP]
    cdef double ab[STRIP]
    cdef double column_u[STRIP]
    cdef double column_uv[STRIP]
    cdef double shifts[STRIP]
    cdef double wide_u[STRIP]
    cdef double wide_v[STRIP]
    cdef double selected[STRIP]
    cdef double d, e
    cdef bint streams, masked = mask != NULL
    cdef Py_ssize_t _, j, place = 0
    if t.fused != NULL:
        place = u - <const real*>t.fused.u
    widen(t.shift, shifts, width)
    widen(sum_u, a, width)
    widen(sum_uv, ab, width)
    for _ in range(rows):
        if ahead:
            prefetch(u + ahead, width * sizeof(real))
        if ahead and v != NULL:
            prefetch(v + ahead, width * sizeof(real))
        if masked:
            widen(mask, selected, width)
            mask += stride
        widen(u, wide_u, width)
        u += stride
        if v != NULL:
            widen(v, wide_v, width)
            v += stride
        if t.fused != NULL:
            go_back(u, wide_v, wide_u, width, t.fused, t.how, place, shifts, t.slope, t.beta, 1)
            if t.how == ADDED and t.fused.is_early:
                streams = (t.fused.dresidual_streams and width == STRIP
                           and to_line(<const real*>t.fused.dresidual + place) == 0)
                if ahead and not streams:
                    prefetch_beside(u, t.fused.dresidual, False, place + ahead, width)
                give_residual(u, wide_u, width, t.fused, place, streams)
            if ahead and t.how != CLIPPED and t.fused.third != NULL:
                prefetch_beside(u, t.fused.third, t.fused.third_is_float, place + ahead, width)
            place += stride
        if t.column_u != NULL:
            widen(t.column_u, column_u, width)
            widen(t.column_uv, column_uv, width)
        for j in range(width):
            e = difference(wide_u[j] if v == NULL else wide_v[j], shifts[j])
            d = e if v == NULL else wide_u[j] if t.weight == NULL else wide_u[j] * t.weight[j]
            a[j] += d if not masked or selected[j] != 0 else 0
            ab[j] += d * e if not masked or selected[j] != 0 else 0
            if t.column_u != NULL:
                column_u[j] += wide_u[j]
                column_uv[j] += wide_u[j] * (e * t.column_weight)
        if t.column_u != NULL:
            narrow(column_u, t.column_u, width, False)
            narrow(column_uv, t.column_uv, width, False)
        t = below(t, stride)
    narrow(a, sum_u, width, False)
    narrow(ab, sum_uv, width, False)


cdef struct Coefficients:               # of the map
    const double* first                 # mean, and so far apart slope, center, scale and beta
    Py_ssize_t apart
    Py_ssize_t step                     # 1 if they have a value per lane, 0 if one for all
    const double* gamma                 # these have a value per lane; or NULL
    const double* beta


cdef inline Coefficients advanced(Coefficients k, Py_ssize_t lanes) noexcept nogil:
    k.first += lanes * k.step
    if k.gamma != NULL:
        k.gamma += lanes
        k.beta += lanes
    return k


cdef inline void normalize(double* x, Py_ssize_t n, Coefficients k) noexcept nogil:
    """x becomes (x - mean) * (slope * gamma) + center, or + beta."""
    cdef Py_ssize_t j
    cdef const double* of
    cdef double slope, center
    for j in range(n):
        of = k.first + j * k.step
        slope = of[k.apart] if k.gamma == NULL else of[k.apart] * k.gamma[j]
        center = of[2 * k.apart] if k.gamma == NULL else k.beta[j]
        x[j] = difference(x[j], of[0]) * slope + center


cdef inline void differentiate(
    double* x, const double* dy, Py_ssize_t n, Coefficients k,
) noexcept nogil:
    """x becomes (x - mean) * slope + (dy * (scale * gamma) - center)."""
    cdef Py_ssize_t j
    cdef const double* of
    cdef double scale
    for j in range(n):
        of = k.first + j * k.step
        scale = of[3 * k.apart] if k.gamma == NULL else of[3 * k.apart] * k.gamma[j]
        x[j] = (difference(x[j], of[0]) * of[k.apart]
                + difference(dy[j] * scale, of[2 * k.apart]))


cdef inline void scale(double* x, const double* dy, Py_ssize_t n, Coefficients k) noexcept nogil:
    """x becomes dy * scale, without -0.0, as where nothing follows the norm."""
    cdef Py_ssize_t j
    for j in range(n):
        x[j] = dy[j] * k.first[j * k.step + 3 * k.apart] + 0.0


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
