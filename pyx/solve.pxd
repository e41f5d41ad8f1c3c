# Between the two phases: from the sums of a cell to the coefficients of its map.

from libc.math cimport sqrt
from libc.string cimport memcpy, memset

from call cimport (
    Call, center_row, count_row, dbeta_row, dgamma_row, invstd_row, mean_row, partial, row,
    running_mean_row, running_var_row, scale_row, shift_row, slope_row, var_row,
)
from plan cimport Plan
from rows cimport repeat


cdef inline void add_up(double* values, Py_ssize_t count, Py_ssize_t kept) noexcept nogil:
    """Add to each of the first values those that follow at multiples of their number."""
    cdef Py_ssize_t part, i
    for part in range(1, count // kept):
        for i in range(kept):
            values[i] += values[part * kept + i]


cdef inline void add_blocks(const Call* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Add the partial sums of cells start to stop to those of block 0, in block order."""
    cdef Py_ssize_t cells = call.plan.cells
    cdef double* first = partial(call, 0)
    cdef const double* other
    cdef Py_ssize_t block, c
    for block in range(1, call.plan.blocks):
        other = partial(call, block)
        for c in range(start, stop):
            first[c] += other[c]
        for c in range(cells + start, cells + stop):
            first[c] += other[c]


cdef inline void pool(
    const Plan* p, double* values, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    """Give every cell the sum over those that have one statistic with it."""
    cdef Py_ssize_t c, i
    cdef double total
    cdef Py_ssize_t group = p.shape.group
    if p.shape.shared:
        add_up(values, p.cells, p.shape.channels)
        repeat(values, p.cells, p.shape.channels)
    if group > 1:
        for c in range(start // group, stop // group):
            total = 0
            for i in range(c * group, (c + 1) * group):
                total += values[i]
            for i in range(c * group, (c + 1) * group):
                values[i] = total


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
    """mean = K + S1/n, var = (S2 - S1**2/n)/n, slope = gamma / sqrt(var + eps)."""
    cdef double* mean = row(call, mean_row)
    cdef double* var = row(call, var_row)
    cdef double* invstd = row(call, invstd_row)
    cdef double* slope = row(call, slope_row)
    cdef const double* shift = row(call, shift_row)
    cdef const double* count = row(call, count_row)
    cdef double* s1 = partial(call, 0)
    cdef double* s2 = s1 + call.plan.cells
    cdef double eps = call.eps
    cdef double n, v
    cdef Py_ssize_t c
    if call.sums:
        add_blocks(call, start, stop)
        pool(&call.plan, s1, start, stop)
        pool(&call.plan, s2, start, stop)
        if not call.centered:
            memset(s1 + start, 0, (stop - start) * sizeof(double))
        for c in range(start, stop):
            n = max(1, count[c])
            mean[c] = shift[c] + s1[c] / n
            v = (s2[c] - s1[c] * s1[c] / n) / n
            var[c] = 0 if v < 0 else v      # so that NaN stays
        average(call, running_mean_row, mean, 0, start, stop)
        average(call, running_var_row, var, 1, start, stop)
    for c in range(start, stop):
        invstd[c] = 1 / sqrt(var[c] + eps)
        slope[c] *= invstd[c]


cdef inline void solve_backward(const Call* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """dx = scale*dy - sum(scale*dy)/n - (x - mean) * invstd**2 * sum(scale*dy * (x - mean))/n."""
    cdef Py_ssize_t cells = call.plan.cells
    cdef const double* mean = call.forward_work + mean_row * cells
    cdef const double* invstd = call.forward_work + invstd_row * cells
    cdef const double* scale = call.forward_work + slope_row * cells
    cdef const double* count = call.forward_work + count_row * cells
    cdef double* s1 = partial(call, 0)
    cdef double* s2 = s1 + cells
    cdef double* slope = row(call, slope_row)
    cdef double* center = row(call, center_row)
    cdef double n
    cdef Py_ssize_t c
    if call.sums:
        add_blocks(call, start, stop)
        for c in range(start, stop):
            row(call, dbeta_row)[c] = s1[c]
            row(call, dgamma_row)[c] = s2[c] * invstd[c]
    if not call.training:       # dx = (dy - 0) * scale + 0
        for c in range(start, stop):
            row(call, mean_row)[c] = center[c] = 0
            slope[c] = scale[c]
        return
    memcpy(row(call, mean_row) + start, mean + start, (stop - start) * sizeof(double))
    memcpy(row(call, scale_row) + start, scale + start, (stop - start) * sizeof(double))
    for c in range(start, stop):
        center[c] = scale[c] * s1[c]
        slope[c] = scale[c] * (s2[c] * invstd[c])
    if not call.centered:
        memset(center + start, 0, (stop - start) * sizeof(double))
    pool(&call.plan, center, start, stop)
    pool(&call.plan, slope, start, stop)
    for c in range(start, stop):
        n = max(1, count[c])
        center[c] /= n
        slope[c] *= -invstd[c] / n
