# What belongs to cells, from and to the arrays of a call: parameters, counts, K, gradients.

from libc.string cimport memchr, memcpy, memset

from arrays cimport Array
from call cimport (
    Call, beta_row, count_row, inner_row, padded, product_row, row, saved, saved_rows, shift_row,
    slope_row, sum_row, take_parameters,
)
from plan cimport Plan, Shape
from rows cimport Mask, halve, repeat


cdef inline void fill(
    const Array* array, double default, Py_ssize_t count, double* to,
) noexcept nogil:
    """Fill `to` with an array, repeated, or with its default."""
    to[0] = default
    if array.data != NULL:
        array.storage.load(array.data, 1, array.size, to)
    repeat(to, count, array.size if array.data != NULL else 1)


cdef inline void give(const double* values, const Array* array) noexcept nogil:
    """Store values into an array, if there is one."""
    if array.data != NULL:
        array.storage.store(values, array.size, array.data)


cdef inline void set_parameters(Call* call, const Array* gamma, const Array* beta) noexcept nogil:
    cdef Py_ssize_t inner = call.plan.shape.inner
    cdef Array none
    memset(&none, 0, sizeof(none))
    cdef double* inside = saved(call, saved_rows)
    if call.plan.shape.inside:
        fill(gamma, 1, inner, inside)
        fill(beta, 0, inner, inside + inner)
        take_parameters(call)
        gamma = beta = &none
    fill(gamma, 1, call.plan.cells, saved(call, slope_row))
    fill(beta, 0, call.plan.cells, saved(call, beta_row))


cdef inline void set_counts(const Call* call, const Array* counts) noexcept nogil:
    """Values of each statistic: those that a mask selects, or all."""
    cdef const Shape* s = &call.plan.shape
    fill(counts, <double>s.outer * s.inner * s.group * (s.samples if s.shared else 1),
         call.plan.cells, row(call, count_row))


cdef inline void take_merged(
    const Call* call, const Array* merged, double* first, double* second,
) noexcept nogil:
    """Fill two rows with what all members of a group have made of their channels."""
    cdef Py_ssize_t channels = call.plan.shape.channels
    memcpy(first, merged.data, channels * sizeof(double))
    memcpy(second, merged.data + channels * sizeof(double), channels * sizeof(double))
    repeat(first, call.plan.cells, channels)
    repeat(second, call.plan.cells, channels)


cdef inline void give_share(
    const Array* share, const double* first, const double* second,
) noexcept nogil:
    memcpy(share.data, first, share.nbytes // 2)
    memcpy(share.data + share.nbytes // 2, second, share.nbytes // 2)


cdef inline void load_first_selected(const Call* call, const Array* x) noexcept nogil:
    """K of every channel with a mask: the first value that it selects, in the order of memory."""
    cdef const Shape* s = &call.plan.shape
    cdef const char* values = x.data
    cdef double* shift = row(call, shift_row)
    cdef const double* count = row(call, count_row)
    cdef Py_ssize_t* wanted = <Py_ssize_t*>row(call, sum_row)   # channels without one so far
    cdef Py_ssize_t _, i, c, left = 0, still
    cdef Mask line = call.where
    cdef const void* found
    for c in range(s.channels):
        if count[c]:
            wanted[left] = c
            left += 1
    for _ in range(s.samples * s.outer):
        if left == 0:
            return
        if memchr(line, 1, s.channels * s.inner) != NULL:
            still = 0
            for i in range(left):
                c = wanted[i]
                found = memchr(line + c * s.inner, 1, s.inner)
                if found == NULL:
                    wanted[still] = c
                    still += 1
                else:
                    x.storage.load(values + (<Mask>found - call.where) * x.itemsize, 0, 1,
                                   shift + c)
            left = still
        line += s.channels * s.inner


cdef inline void load_shift(const Call* call, const Array* x) noexcept nogil:
    """K of every cell: a value of its statistic, the same for all its cells."""
    cdef const Shape* s = &call.plan.shape
    cdef const char* values = x.data
    cdef double* shift = row(call, shift_row)
    cdef Py_ssize_t i
    memset(shift, 0, call.plan.cells * sizeof(double))
    if call.where != NULL:
        load_first_selected(call, x)
    elif call.centered:
        for i in range(1 if s.shared else s.samples):
            x.storage.load(values + i * s.outer * s.channels * s.inner * x.itemsize, s.inner,
                           s.channels, shift + i * s.channels)
    if s.group > 1:
        for i in range(call.plan.cells):
            shift[i] = shift[i // s.group * s.group]
    if s.shared:
        repeat(shift, call.plan.cells, s.channels)


cdef inline void give_gradients(
    const Call* call, const Array* dgamma, const Array* dbeta,
) noexcept nogil:
    """Add up what the samples, or the parts, have summed, and store it."""
    cdef const Plan* p = &call.plan
    cdef double* gamma = row(call, product_row)
    cdef double* beta = row(call, sum_row)
    if call.columns:
        beta, gamma = inner_row(call, 2), inner_row(call, 3)
        halve(beta, p.parts, 2 * padded(p))
    else:
        halve(gamma, p.cells // p.shape.parameters, p.shape.parameters)
        halve(beta, p.cells // p.shape.parameters, p.shape.parameters)
    give(gamma, dgamma)
    give(beta, dbeta)
