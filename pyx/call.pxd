# One call of a kernel: its plan, its arrays, and the rows of `work`, where what belongs to a
# cell is kept in float64.

from plan cimport Plan
from rows cimport Factor, Mask

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
