# Between the two phases: from the sums of a cell to the coefficients of its map.

from libc.math cimport sqrt
from libc.string cimport memcpy, memset

from call cimport (
    Call, center_row, count_row, dx_slope_row, invstd_row, mean_row, partial, product_row, row,
    running_mean_row, running_var_row, saved, shift_row, slope_row, sum_row, var_row,
)
from plan cimport Plan
from rows cimport halve, repeat

cdef enum:
    FAR = 16    # variances, from the mean to K, squared: more than four standard deviations


cdef inline void add_blocks(const Call* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The sums of cells start to stop, of all blocks in their order."""
    cdef Py_ssize_t cells = call.plan.cells, count = (stop - start) * sizeof(double)
    cdef double* s1 = row(call, sum_row)
    cdef double* s2 = row(call, product_row)
    cdef const double* block
    cdef Py_ssize_t i, c
    memcpy(s1 + start, partial(call, 0) + start, count)
    memcpy(s2 + start, partial(call, 0) + cells + start, count)
    for i in range(1, call.plan.blocks):
        block = partial(call, i)
        for c in range(start, stop):
            s1[c] += block[c]
        for c in range(start, stop):
            s2[c] += block[cells + c]


cdef inline void pool(
    const Plan* p, double* values, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    """Give every cell the sum over those that have one statistic with it."""
    cdef Py_ssize_t i, group = p.shape.group
    if p.shape.shared:
        halve(values, p.shape.samples, p.shape.channels)
        repeat(values, p.cells, p.shape.channels)
    if group > 1:
        for i in range((stop - start) // group):
            halve(values + start + i * group, group, 1)
            repeat(values + start + i * group, group, 1)


cdef inline bint settle_forward(
    const Call* call, Py_ssize_t start, Py_ssize_t stop, bint first,
) noexcept nogil:
    """mean = K + S1/n, var = (S2 - S1**2/n)/n. True: these are to be summed once more.

    What cancels in the variance is (K - mean)**2, and K may be far off. At first cells where it is
    get their mean for K.
    """
    cdef double* mean = saved(call, mean_row)
    cdef double* var = saved(call, var_row)
    cdef double* shift = row(call, shift_row)
    cdef const double* count = row(call, count_row)
    cdef double* s1 = row(call, sum_row)
    cdef double* s2 = row(call, product_row)
    cdef double n, off, v
    cdef bint again = False
    cdef Py_ssize_t c
    add_blocks(call, start, stop)
    pool(&call.plan, s1, start, stop)
    pool(&call.plan, s2, start, stop)
    if not call.centered:
        memset(s1 + start, 0, (stop - start) * sizeof(double))
    for c in range(start, stop):
        n = max(1, count[c])
        off = s1[c] / n
        v = (s2[c] - s1[c] * off) / n
        mean[c] = shift[c] + off
        var[c] = 0 if v < 0 else v      # so that NaN stays
    if first:
        for c in range(start, stop):
            off = mean[c] - shift[c]
            if off * off > FAR * var[c]:
                shift[c], again = mean[c], True
    return again


cdef inline bint settle_backward(
    const Call* call, Py_ssize_t start, Py_ssize_t stop, bint first,
) noexcept nogil:
    add_blocks(call, start, stop)
    return False


cdef inline bint was_far(const Call* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Whether one of these cells is to be summed once more. (If K was the mean from the first, it
    has the same sums again.)"""
    cdef const double* mean = saved(call, mean_row)
    cdef bint any_far = False
    cdef Py_ssize_t c
    for c in range(start, stop):
        any_far |= call.shift[c] == mean[c]
    return any_far


cdef inline void average(
    const Call* call, Py_ssize_t index, const double* batch, double ddof,
    Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    """running = (1 - momentum) * running + momentum * batch, where there are two values or more."""
    cdef double* running = row(call, index)
    cdef const double* count = row(call, count_row)
    cdef double weight = call.momentum
    cdef double momentum
    cdef Py_ssize_t c
    for c in range(start, stop):
        momentum = weight if count[c] > 1 else 0
        running[c] = ((1 - momentum) * running[c]
                      + momentum * (batch[c] * (count[c] / max(1, count[c] - ddof))))


cdef inline void solve_forward(const Call* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """slope = gamma / sqrt(var + eps)."""
    cdef const double* var = saved(call, var_row)
    cdef double* invstd = saved(call, invstd_row)
    cdef double* slope = saved(call, slope_row)
    cdef double eps = call.eps
    cdef Py_ssize_t c
    if call.training:
        average(call, running_mean_row, saved(call, mean_row), 0, start, stop)
        average(call, running_var_row, var, 1, start, stop)
    for c in range(start, stop):
        invstd[c] = 1 / sqrt(var[c] + eps)
        slope[c] *= invstd[c]


cdef inline void solve_backward(const Call* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """dx = scale*dy - sum(scale*dy)/n - (x - mean) * invstd**2 * sum(scale*dy * (x - mean))/n."""
    cdef const double* invstd = saved(call, invstd_row)
    cdef const double* scale = saved(call, slope_row)
    cdef const double* count = row(call, count_row)
    cdef double* s1 = row(call, sum_row)
    cdef double* s2 = row(call, product_row)
    cdef double* slope = row(call, dx_slope_row)
    cdef double* center = row(call, center_row)
    cdef double n
    cdef Py_ssize_t c
    if call.sums:
        for c in range(start, stop):
            s2[c] *= invstd[c]
    elif call.training:     # those of all members of a group are given
        return
    if not call.training:
        for c in range(start, stop):
            center[c] = 0
        return
    for c in range(start, stop):
        center[c] = scale[c] * s1[c] if call.centered else 0
        slope[c] = scale[c] * s2[c]
    pool(&call.plan, center, start, stop)
    pool(&call.plan, slope, start, stop)
    for c in range(start, stop):
        n = max(1, count[c])
        center[c] /= n
        slope[c] *= -invstd[c] / n
