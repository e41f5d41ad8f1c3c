# One call of a kernel: its plan, its arrays, and the rows in which what belongs to a cell is kept
# in float64: those of `saved` are for backward and the Cache, those of `scratch` for this call.

from libc.string cimport memcpy

from plan cimport Plan, ceil_div
from rows cimport LINE, Fused, Mask, on_line

cdef enum:              # of `saved`; then gamma and beta as they were given, if they are inside
    mean_row
    slope_row           # gamma / sqrt(var + eps)
    var_row
    invstd_row
    beta_row
    saved_rows

cdef enum:              # of `scratch`; then two rows of partial sums a block
    center_row          # of backward
    count_row           # values of the statistic
    sum_row             # of all blocks; backward: dbeta
    product_row         # backward: dgamma
    shift_row           # K
    dx_slope_row = shift_row
    running_mean_row
    running_var_row
    scratch_rows

# One pass of a call, over a block of a tile. What it reads first is given for its type.
ctypedef void (*Pass)(const Call*, const void*, Py_ssize_t, Py_ssize_t) noexcept nogil

cdef struct Call:
    Plan plan
    Pass sum_pass, map_pass
    # What the cells from here to there make of their sums, first: whether they have to be summed
    # once more; and then of their statistics.
    bint (*settle)(const Call*, Py_ssize_t, Py_ssize_t, bint) noexcept nogil
    void (*solve)(const Call*, Py_ssize_t, Py_ssize_t) noexcept nogil
    # What is summed, u and its products with v, or where v is NULL, its squares; and what is
    # mapped, x and dy, to out.
    const void* u
    const void* v
    const void* x
    const void* dy
    void* out
    Py_ssize_t itemsize             # of each of these
    const double* shift             # of the cells: is taken off v, or where v is NULL off u
    const double* coefficients[5]   # of the cells' map: mean, slope, center, scale, beta
    const double* gamma             # of the values of a cell: then they are not in the rows
    const double* beta
    Mask where                      # of x's shape, or NULL
    const Fused* fused              # or NULL
    int how                         # it is fused
    double* saved
    double* scratch
    double momentum, eps
    bint sums, columns, training, centered
    bint from_memory                # what is read was in no cache; stream: past the caches
    bint stream
    bint by_part                    # all phases, part by part
    Py_ssize_t cache_size
    int threads


cdef inline double* saved(const Call* call, Py_ssize_t index) noexcept nogil:
    return call.saved + index * call.plan.cells


cdef inline double* row(const Call* call, Py_ssize_t index) noexcept nogil:
    return call.scratch + index * call.plan.cells


cdef inline double* partial(const Call* call, Py_ssize_t block) noexcept nogil:
    return row(call, scratch_rows + 2 * block)


cdef inline Py_ssize_t padded(const Plan* p) noexcept nogil:
    """The distance of rows of inner values: an odd number of lines, so that the same places of
    neighbouring rows lie in different sets of a cache."""
    return (p.shape.inner // LINE + 1 | 1) * LINE


cdef inline Py_ssize_t saved_values(const Plan* p) noexcept nogil:
    return saved_rows * p.cells + (2 * p.shape.inner if p.shape.inside else 0)


cdef inline Py_ssize_t scratch_values(const Plan* p) noexcept nogil:
    """With parameters that are inside these come next, on cache lines, as the loops read them;
    then the sums of columns."""
    cdef Py_ssize_t values = (scratch_rows + 2 * p.blocks) * p.cells
    if not p.shape.inside:
        return values
    return values + LINE + (2 + 2 * ceil_div(p.tiles, p.column_tiles)) * padded(p)


cdef inline double* inner_row(const Call* call, Py_ssize_t index) noexcept nogil:
    """Of inner values: gamma, beta, and for each part the sums of columns, of u and of products."""
    return on_line(partial(call, call.plan.blocks)) + index * padded(&call.plan)


cdef inline void take_parameters(Call* call) noexcept nogil:
    """Copy gamma and beta to where the loops read them."""
    cdef Py_ssize_t inner = call.plan.shape.inner
    memcpy(inner_row(call, 0), saved(call, saved_rows), inner * sizeof(double))
    memcpy(inner_row(call, 1), saved(call, saved_rows) + inner, inner * sizeof(double))
    call.gamma, call.beta = inner_row(call, 0), inner_row(call, 1)


cdef inline bint part_by_part(const Call* call) noexcept nogil:
    """Whether a thread keeps a part to itself; or else the blocks of all tiles are shared out."""
    cdef Py_ssize_t parts = call.plan.parts
    cdef double part_bytes = <double>call.plan.size // parts * call.itemsize
    cdef Py_ssize_t enough = 4 * call.threads if call.threads > 1 else 2    # an even share each
    return call.sums and parts >= enough and part_bytes * call.threads <= call.cache_size
