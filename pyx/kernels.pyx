"""Batch normalization without the GIL: the entry points, compiled once for each CPU level.

Design
------
An array is (outer, channels, inner); `plan.pxd` cuts it into tiles, blocks and rows of lanes.
A norm runs in two phases. The first sums over every channel, the second maps element by element
(both in `passes.pxd`), and between them `solve` makes four coefficients per channel:

    forward    sums of x - K and (x - K)**2        y  = (x - mean) * slope + offset
    backward   sums of dy and dy * (x - mean)      dx = (x - mean) * slope + (dy - center) * scale

Both directions are the same `run`, with other pointers and another `solve`; `rows.pxd` holds the
loops. Either phase can be left out. What belongs to a channel is a row of `work`, a float64 array
that the caller allocates: `WORK_ROWS` rows, named below, then two rows of partial sums a block.
"""

from cython.parallel cimport parallel, prange
from libc.math cimport sqrt

from passes cimport map_block, sum_block
from plan cimport Plan, first_channel, make_plan, tile_channels
from rows cimport real

cdef enum:
    mean_row            # the map's coefficients: these four lie together
    slope_row           # forward, in: gamma
    offset_row          # forward, in: beta; backward: center
    scale_row
    var_row
    invstd_row
    running_mean_row
    running_var_row
    dgamma_row
    dbeta_row
    shift_row
    work_rows

MEAN, SLOPE, OFFSET, VAR, INVSTD = mean_row, slope_row, offset_row, var_row, invstd_row
RUNNING_MEAN, RUNNING_VAR = running_mean_row, running_var_row
DGAMMA, DBETA = dgamma_row, dbeta_row
WORK_ROWS = work_rows

ctypedef void (*Solve)(const Call*, Py_ssize_t, Py_ssize_t) noexcept nogil

cdef struct Call:
    Plan plan
    Solve solve
    double* work
    const double* forward_work      # backward only
    const double* shift_u
    const double* shift_v
    double count                    # values of a channel
    double momentum, eps
    bint sums, training, stream
    Py_ssize_t cache_size
    int threads


cdef inline double* row(const Call* call, Py_ssize_t index) noexcept nogil:
    return call.work + index * call.plan.channels


cdef inline double* partial(const Call* call, Py_ssize_t block) noexcept nogil:
    return row(call, work_rows + 2 * block)


cdef inline double total(const Call* call, Py_ssize_t which, Py_ssize_t c) noexcept nogil:
    """Add the partial sums of a channel in the order of blocks."""
    cdef double value = 0
    cdef Py_ssize_t block
    for block in range(call.plan.blocks):
        value += partial(call, block)[which * call.plan.channels + c]
    return value


cdef void solve_forward(const Call* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """mean = K + S1/n, var = (S2 - S1**2/n)/n, running <- (1 - momentum) running + momentum batch."""
    cdef double n = call.count
    cdef double s1, var, old = 1 - call.momentum
    cdef Py_ssize_t c
    for c in range(start, stop):
        if call.sums:
            s1 = total(call, 0, c)
            var = (total(call, 1, c) - s1 * s1 / n) / n
            var = 0 if var < 0 else var     # keeps NaN
            row(call, mean_row)[c] = row(call, shift_row)[c] + s1 / n
            row(call, var_row)[c] = var
            row(call, running_mean_row)[c] = (
                old * row(call, running_mean_row)[c] + call.momentum * row(call, mean_row)[c])
            row(call, running_var_row)[c] = (
                old * row(call, running_var_row)[c] + call.momentum * (var * n / (n - 1)))
        row(call, invstd_row)[c] = 1 / sqrt(row(call, var_row)[c] + call.eps)
        row(call, slope_row)[c] *= row(call, invstd_row)[c]


cdef void solve_backward(const Call* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """dx = scale * (dy - sum(dy)/n - (x - mean) * invstd**2 * sum(dy * (x - mean))/n)."""
    cdef Py_ssize_t channels = call.plan.channels
    cdef double s1 = 0, s2 = 0, invstd, scale
    cdef Py_ssize_t c
    for c in range(start, stop):
        invstd = call.forward_work[invstd_row * channels + c]
        scale = call.forward_work[slope_row * channels + c]
        row(call, mean_row)[c] = 0
        row(call, slope_row)[c] = scale
        row(call, offset_row)[c] = 0
        if call.sums:
            s1, s2 = total(call, 0, c), total(call, 1, c)
            row(call, dbeta_row)[c] = s1
            row(call, dgamma_row)[c] = s2 * invstd
        if call.training:
            row(call, mean_row)[c] = call.forward_work[mean_row * channels + c]
            row(call, slope_row)[c] = -scale * (invstd * invstd) * (s2 / call.count)
            row(call, offset_row)[c] = s1 / call.count
            row(call, scale_row)[c] = scale


cdef void solve_tile(const Call* call, Py_ssize_t tile) noexcept nogil:
    cdef Py_ssize_t start = first_channel(&call.plan, tile)
    call.solve(call, start, start + tile_channels(&call.plan, tile))


cdef void sum_task(
    const Call* call, Py_ssize_t tile, Py_ssize_t block, const real* u, const real* v,
) noexcept nogil:
    sum_block(&call.plan, tile, block, u, v, call.shift_u, call.shift_v, partial(call, block))


cdef void map_task(
    const Call* call, Py_ssize_t tile, Py_ssize_t block, const real* x, const real* dy, real* out,
) noexcept nogil:
    map_block(&call.plan, tile, block, x, dy, out, row(call, mean_row), call.stream)


cdef void run_tile(
    const Call* call, Py_ssize_t tile, const real* u, const real* v, const real* x,
    const real* dy, real* out,
) noexcept nogil:
    """Both phases of one tile, while it is in the cache."""
    cdef Py_ssize_t block
    if call.sums:
        for block in range(call.plan.blocks):
            sum_task(call, tile, block, u, v)
    solve_tile(call, tile)
    if out != NULL:
        for block in range(call.plan.blocks):
            map_task(call, tile, block, x, dy, out)


cdef bint is_tile_by_tile(const Call* call, Py_ssize_t itemsize) noexcept nogil:
    """Whether a thread keeps a tile to itself; else every tile is shared out by blocks."""
    cdef const Plan* p = &call.plan
    cdef double tile_bytes = call.count * p.tile_channels * itemsize
    return call.threads == 1 or (
        p.tiles >= 4 * call.threads and tile_bytes * call.threads <= call.cache_size)


cdef void run(
    const Call* call, const real* u, const real* v, const real* x, const real* dy, real* out,
) noexcept nogil:
    """Sum u and v, solve, map x and dy to out, in one parallel region."""
    cdef Py_ssize_t tiles = call.plan.tiles, blocks = call.plan.blocks
    cdef Py_ssize_t tasks = tiles * blocks
    cdef Py_ssize_t task
    cdef bint tile_by_tile = is_tile_by_tile(call, sizeof(real))
    with parallel(num_threads=call.threads, use_threads_if=call.threads > 1):
        if tile_by_tile:
            for task in prange(tiles, schedule="dynamic"):
                run_tile(call, task, u, v, x, dy, out)
        else:
            if call.sums:
                for task in prange(tasks, schedule="static"):
                    sum_task(call, task % tiles, task // tiles, u, v)
            for task in prange(tiles, schedule="static"):
                solve_tile(call, task)
            if out != NULL:
                # Backwards: what was summed last is still in the cache.
                for task in prange(tasks, schedule="static"):
                    map_task(call, (tasks - 1 - task) % tiles, (tasks - 1 - task) // tiles,
                             x, dy, out)


def count_blocks(Py_ssize_t outer, Py_ssize_t channels, Py_ssize_t inner):
    """Blocks of partial sums that an array of this shape needs."""
    return make_plan(outer, channels, inner).blocks


def forward(
    const real[::1] x not None, real[::1] y, double[:, ::1] work not None,
    Py_ssize_t outer, Py_ssize_t channels, Py_ssize_t inner,
    bint training, double momentum, double eps,
    bint stream, Py_ssize_t cache_size, int threads,
):
    """Statistics of x (if training) and y, its normalization (if not None)."""
    cdef Call call
    cdef real* out = NULL
    cdef Py_ssize_t c
    call.plan = make_plan(outer, channels, inner)
    call.solve = solve_forward
    call.work = &work[0, 0]
    call.count = outer * inner
    call.momentum, call.eps = momentum, eps
    call.sums = call.training = training
    call.stream, call.cache_size, call.threads = stream, cache_size, threads
    call.shift_u = call.shift_v = row(&call, shift_row)
    if y is not None:
        out = &y[0]
    with nogil:
        if training:
            for c in range(channels):
                row(&call, shift_row)[c] = x[c * inner]
        run(&call, &x[0], &x[0], &x[0], <const real*>NULL, out)


def backward(
    const real[::1] dy not None, const real[::1] x not None, real[::1] dx not None,
    double[:, ::1] work not None, const double[:, ::1] forward_work not None,
    Py_ssize_t outer, Py_ssize_t channels, Py_ssize_t inner,
    bint training, bint sums, bint stream, Py_ssize_t cache_size, int threads,
):
    """dx, and the sums that are dgamma and dbeta, from the work of a forward call."""
    cdef Call call
    cdef Py_ssize_t c
    call.plan = make_plan(outer, channels, inner)
    call.solve = solve_backward
    call.work = &work[0, 0]
    call.forward_work = &forward_work[0, 0]
    call.count = outer * inner
    call.sums, call.training = sums, training
    call.stream, call.cache_size, call.threads = stream, cache_size, threads
    call.shift_u = row(&call, shift_row)
    call.shift_v = call.forward_work + mean_row * channels
    with nogil:
        for c in range(channels):
            row(&call, shift_row)[c] = 0
        if training:
            run(&call, &dy[0], &x[0], &x[0], &dy[0], &dx[0])
        else:
            run(&call, &dy[0], &x[0], &dy[0], <const real*>NULL, &dx[0])
