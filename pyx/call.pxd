# One call of a kernel: its plan, its arrays, and the rows of `work`, where what belongs to a
# cell is kept in float64.

from libc.string cimport memcpy

from plan cimport Plan, columns_of
from rows cimport LINE, Factor, Mask, on_line

cdef enum:
    mean_row            # the map's coefficients: these four lie together
    slope_row
    center_row          # forward: beta
    scale_row
    var_row
    invstd_row
    running_mean_row
    running_var_row
    dgamma_row
    dbeta_row
    shift_row
    count_row           # values of the statistic
    work_rows           # then two rows of partial sums a block

cdef struct Call:
    Plan plan
    void (*solve)(const Call*, Py_ssize_t, Py_ssize_t) noexcept nogil
    # What is summed, u and u * v, after their factors; and what is mapped, x and dy, to out.
    const void* u
    const void* v
    const void* x
    const void* dy
    void* out
    Factor of_u, of_v
    const double* gamma             # of the values of a cell: then they are not in the rows
    const double* beta
    const Call* columns             # sums over the columns: a block of it is a part; or NULL
    Mask where                      # of x's shape, or NULL
    double* work
    const double* forward_work      # backward: that of the forward call
    double momentum, eps
    bint sums, training, centered, stream
    Py_ssize_t cache_size
    int threads


cdef inline double* row(const Call* call, Py_ssize_t index) noexcept nogil:
    return call.work + index * call.plan.cells


cdef inline double* partial(const Call* call, Py_ssize_t block) noexcept nogil:
    return row(call, work_rows + 2 * block)


cdef inline Py_ssize_t work_of(const Plan* p) noexcept nogil:
    return (work_rows + 2 * p.blocks) * p.cells


cdef inline Py_ssize_t parameters_of(const Plan* p) noexcept nogil:
    """Parameters that are inside: gamma and beta, and once more, each at the start of a line."""
    return 2 * p.shape.inner + 2 * (p.shape.inner + LINE) if p.shape.inside else 0


cdef inline Py_ssize_t work_values(const Plan* p) noexcept nogil:
    """Values of `work`: with parameters that are inside, these and the sums of columns, too."""
    cdef Plan columns
    if not p.shape.inside:
        return work_of(p)
    columns = columns_of(p)
    return work_of(p) + parameters_of(p) + work_of(&columns)


cdef inline void take_parameters(Call* call, const double* inside) noexcept nogil:
    """Copy gamma and beta to where the loops read them."""
    cdef Py_ssize_t inner = call.plan.shape.inner
    cdef double* gamma = on_line(call.work + work_of(&call.plan) + 2 * inner)
    cdef double* beta = on_line(gamma + inner)
    memcpy(gamma, inside, inner * sizeof(double))
    memcpy(beta, inside + inner, inner * sizeof(double))
    call.gamma, call.beta = gamma, beta


cdef inline Call call_of_columns(const Call* call) noexcept nogil:
    """The call that sums dgamma and dbeta if they are inside: over the cells, place by place."""
    cdef Call columns = call[0]
    cdef Py_ssize_t cells = call.plan.cells
    columns.plan = columns_of(&call.plan)
    columns.work = call.work + work_of(&call.plan) + parameters_of(&call.plan)
    columns.of_u = Factor(NULL, NULL, 0, 1)
    columns.of_v = Factor(call.forward_work + mean_row * cells,
                          call.forward_work + invstd_row * cells, 1, 0)
    return columns
