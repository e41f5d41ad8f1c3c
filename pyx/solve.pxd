# Between the two phases: from the sums of a channel to the coefficients of its map.

from libc.math cimport sqrt

from call cimport (
    Call, center_row, dbeta_row, dgamma_row, invstd_row, mean_row, partial, row, running_mean_row,
    running_var_row, scale_row, shift_row, slope_row, var_row,
)


cdef inline void add_blocks(const Call* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Add the partial sums of channels start to stop to those of block 0, in block order."""
    cdef Py_ssize_t channels = call.plan.channels
    cdef double* first = partial(call, 0)
    cdef const double* other
    cdef Py_ssize_t block, c
    for block in range(1, call.plan.blocks):
        other = partial(call, block)
        for c in range(start, stop):
            first[c] += other[c]
        for c in range(channels + start, channels + stop):
            first[c] += other[c]


cdef inline void average(
    const Call* call, Py_ssize_t index, const double* batch, double factor,
    Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    """running = (1 - momentum) * running + momentum * (batch * factor)."""
    cdef double* running = row(call, index)
    cdef double momentum = call.momentum
    cdef double rest = 1 - momentum
    cdef Py_ssize_t c
    for c in range(start, stop):
        running[c] = rest * running[c] + momentum * (batch[c] * factor)


cdef inline void solve_forward(
    const Call* call, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    """mean = K + S1/n, var = (S2 - S1**2/n)/n, slope = gamma / sqrt(var + eps)."""
    cdef double* mean = row(call, mean_row)
    cdef double* var = row(call, var_row)
    cdef double* invstd = row(call, invstd_row)
    cdef double* slope = row(call, slope_row)
    cdef const double* shift = row(call, shift_row)
    cdef const double* s1 = partial(call, 0)
    cdef const double* s2 = s1 + call.plan.channels
    cdef double n = call.count, eps = call.eps
    cdef double v
    cdef Py_ssize_t c
    if call.sums:
        add_blocks(call, start, stop)
        for c in range(start, stop):
            mean[c] = shift[c] + s1[c] / n
            v = (s2[c] - s1[c] * s1[c] / n) / n
            var[c] = 0 if v < 0 else v      # so that NaN stays
        average(call, running_mean_row, mean, 1, start, stop)
        average(call, running_var_row, var, n / (n - 1), start, stop)
    for c in range(start, stop):
        invstd[c] = 1 / sqrt(var[c] + eps)
        slope[c] *= invstd[c]


cdef inline void solve_backward(
    const Call* call, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    """dx = scale * (dy - sum(dy)/n - (x - mean) * invstd**2 * sum(dy * (x - mean))/n)."""
    cdef Py_ssize_t channels = call.plan.channels
    cdef const double* mean = call.forward_work + mean_row * channels
    cdef const double* invstd = call.forward_work + invstd_row * channels
    cdef const double* scale = call.forward_work + slope_row * channels
    cdef const double* s1 = partial(call, 0)
    cdef const double* s2 = s1 + channels
    cdef double* slope = row(call, slope_row)
    cdef double* center = row(call, center_row)
    cdef double* dgamma = row(call, dgamma_row)
    cdef double n = call.count
    cdef Py_ssize_t c
    if call.sums:
        add_blocks(call, start, stop)
        for c in range(start, stop):
            row(call, dbeta_row)[c] = s1[c]
            dgamma[c] = s2[c] * invstd[c]
    if call.training:
        for c in range(start, stop):
            row(call, mean_row)[c] = mean[c]
            row(call, scale_row)[c] = scale[c]
            center[c] = s1[c] / n
            slope[c] = -scale[c] * (invstd[c] * (dgamma[c] / n))
    else:       # dx = (dy - 0) * scale + 0
        for c in range(start, stop):
            row(call, mean_row)[c] = center[c] = 0
            slope[c] = scale[c]
