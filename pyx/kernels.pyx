"""Batch normalization without the GIL: the entry points, compiled once for each CPU level.

Design
------
An array is (outer, channels, inner); `plan.pxd` cuts it into tiles, blocks and rows of lanes.
A norm runs in two phases. The first sums over every channel, the second maps element by element
(`passes.pxd`, on the loops of `rows.pxd`); between them four coefficients are made for every
channel (`solve.pxd`):

    forward    sums of x - K and (x - K)**2        y  = (x - mean) * slope + beta
    backward   sums of dy and dy * (x - mean)      dx = (x - mean) * slope + (dy - center) * scale

Both directions are one `run`, with other arrays in its `Call`, and either phase can be left out.

Arrays have to be plain (`buffers.pxd`); an entry point that gets others returns False, and has
changed nothing.
"""

from numpy import ndarray

from cython.parallel cimport parallel, prange
from libc.string cimport memset

from buffers cimport Buffers, alike, borrow, give_back, is_apart, is_vector
from call cimport (
    Call, center_row, dbeta_row, dgamma_row, invstd_row, mean_row, partial, row, running_mean_row,
    running_var_row, shift_row, slope_row, var_row, work_rows,
)
from passes cimport map_block, sum_block
from plan cimport first_channel, make_plan, tile_channels
from rows cimport real
from solve cimport solve_backward, solve_forward

MEAN, VAR, INVSTD, WORK_ROWS = mean_row, var_row, invstd_row, work_rows


cdef void solve_tile(const Call* call, Py_ssize_t tile) noexcept nogil:
    cdef Py_ssize_t start = first_channel(&call.plan, tile)
    call.solve(call, start, start + tile_channels(&call.plan, tile))


cdef void sum_task(
    const Call* call, Py_ssize_t tile, Py_ssize_t block, const real* storage,
) noexcept nogil:
    sum_block(&call.plan, tile, block, <const real*>call.u, <const real*>call.v,
              call.shift_u, call.shift_v, partial(call, block))


cdef void map_task(
    const Call* call, Py_ssize_t tile, Py_ssize_t block, const real* storage,
) noexcept nogil:
    map_block(&call.plan, tile, block, <const real*>call.x, <const real*>call.dy, <real*>call.out,
              row(call, mean_row), call.stream)


cdef void run_tile(const Call* call, Py_ssize_t tile, const real* storage) noexcept nogil:
    """Both phases of one tile, while it is in the cache."""
    cdef Py_ssize_t block
    if call.sums:
        for block in range(call.plan.blocks):
            sum_task(call, tile, block, storage)
    solve_tile(call, tile)
    if call.out != NULL:
        for block in range(call.plan.blocks):
            map_task(call, tile, block, storage)


cdef bint is_tile_by_tile(const Call* call, Py_ssize_t itemsize) noexcept nogil:
    """Whether a thread keeps a tile to itself; else the blocks of all tiles are shared out."""
    cdef double tile_bytes = call.count * call.plan.tile_channels * itemsize
    return (call.plan.tiles >= 4 * call.threads
            and tile_bytes * call.threads <= call.cache_size)


cdef void run(const Call* call, const real* storage) noexcept nogil:
    """Sum, solve, map: in one parallel region, if in any. `storage` only brings its type."""
    cdef Py_ssize_t tiles = call.plan.tiles
    cdef Py_ssize_t tasks = tiles * call.plan.blocks
    cdef Py_ssize_t task
    cdef bint tile_by_tile = is_tile_by_tile(call, sizeof(real))
    if call.threads == 1 and (tile_by_tile or call.plan.blocks == 1):
        for task in range(tiles):
            run_tile(call, task, storage)
        return
    with parallel(num_threads=call.threads):
        if tile_by_tile:
            for task in prange(tiles, schedule="static"):
                run_tile(call, task, storage)
        else:
            if call.sums:
                for task in prange(tasks, schedule="static"):
                    sum_task(call, task % tiles, task // tiles, storage)
            for task in prange(tiles, schedule="static"):
                solve_tile(call, task)
            if call.out != NULL:
                # Backwards: what was summed last is still in the cache.
                for task in prange(tasks, schedule="static"):
                    map_task(call, (tasks - 1 - task) % tiles, (tasks - 1 - task) // tiles, storage)


cdef void load(const real* values, Py_ssize_t stride, Py_ssize_t count, double* to) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(count):
        to[c] = values[c * stride]


cdef void store(const double* values, Py_ssize_t count, real* to) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(count):
        to[c] = <real>values[c]


ctypedef void (*Run)(const Call*, const void*) noexcept nogil
ctypedef void (*Load)(const void*, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
ctypedef void (*Store)(const double*, Py_ssize_t, void*) noexcept nogil

cdef struct Storage:    # what can be done with an array of a dtype
    Run run
    Load load
    Store store

cdef Storage STORAGE[2]
STORAGE[0] = Storage(<Run>run[float], <Load>load[float], <Store>store[float])
STORAGE[1] = Storage(<Run>run[double], <Load>load[double], <Store>store[double])


cdef inline const Storage* storage(const Py_buffer* array) noexcept nogil:
    return &STORAGE[array.itemsize == sizeof(double)]


cdef int prepare(Call* call, Buffers* buffers, tuple axes, tuple schedule) except -1:
    cdef Py_ssize_t outer, channels, inner
    outer, channels, inner = axes
    call.plan = make_plan(outer, channels, inner)
    call.count = outer * inner
    call.stream, call.cache_size, call.threads = schedule
    buffers.count, buffers.refused = 0, False
    return 0


cdef bint fits(const Call* call, const Py_buffer* x, const Py_buffer* work) noexcept nogil:
    """Whether x, and the work that is to be written, have the sizes that the plan goes by."""
    cdef Py_ssize_t work_size = (work_rows + 2 * call.plan.blocks) * call.plan.channels
    return (x.len == <Py_ssize_t>call.count * call.plan.channels * x.itemsize
            and work.len == work_size * <Py_ssize_t>sizeof(double))


cdef void fill(
    const Call* call, Py_ssize_t index, const Py_buffer* view, double default,
) noexcept nogil:
    """Fill a row of work from a parameter, or with its default."""
    cdef Py_ssize_t c
    if view.buf != NULL:
        storage(view).load(view.buf, 1, call.plan.channels, row(call, index))
    else:
        for c in range(call.plan.channels):
            row(call, index)[c] = default


cdef void give(const Call* call, Py_ssize_t index, const Py_buffer* view) noexcept nogil:
    """Store a row of work into a parameter, if there is one."""
    if view.buf != NULL:
        storage(view).store(row(call, index), call.plan.channels, view.buf)


def count_blocks(Py_ssize_t outer, Py_ssize_t channels, Py_ssize_t inner):
    """Blocks of partial sums that an array of this shape needs."""
    return make_plan(outer, channels, inner).blocks


def is_plain(array):
    """Whether the kernels can read an array as it is."""
    cdef Buffers buffers
    buffers.count, buffers.refused = 0, array is None
    try:
        borrow(&buffers, array, ndarray)
        return not buffers.refused
    finally:
        give_back(&buffers)


def forward(
    x, y, gamma, beta, running_mean, running_var, work,
    tuple axes, bint training, double momentum, double eps, tuple schedule,
):
    """The statistics of x, if training, and if y is not None, y. False: arrays refused."""
    cdef Call call
    cdef Buffers buffers
    cdef int i
    prepare(&call, &buffers, axes, schedule)
    try:
        x_ = borrow(&buffers, x, ndarray)
        y_ = borrow(&buffers, y, ndarray, True)
        gamma_ = borrow(&buffers, gamma, ndarray)
        beta_ = borrow(&buffers, beta, ndarray)
        mean_ = borrow(&buffers, running_mean, ndarray, training)
        var_ = borrow(&buffers, running_var, ndarray, training)
        work_ = borrow(&buffers, work, ndarray, True)
        if buffers.refused or not fits(&call, x_, work_) or (y_.buf != NULL and not alike(x_, y_)):
            return False
        if (mean_.buf == NULL) != (var_.buf == NULL):
            return False
        for i in range(2, 6):
            if not is_vector(&buffers.views[i], call.plan.channels):
                return False
        if not is_apart(&buffers, y_, NULL if training else x_):
            return False
        if training and not (is_apart(&buffers, mean_, NULL) and is_apart(&buffers, var_, NULL)):
            return False
        call.u = call.v = call.x = x_.buf
        call.dy = NULL
        call.out = y_.buf
        call.work = <double*>work_.buf
        call.solve = solve_forward
        call.sums = call.training = training
        call.momentum, call.eps = momentum, eps
        with nogil:
            fill(&call, slope_row, gamma_, 1)
            fill(&call, center_row, beta_, 0)
            fill(&call, running_mean_row if training else mean_row, mean_, 0)
            fill(&call, running_var_row if training else var_row, var_, 1)
            if training:
                storage(x_).load(call.x, call.plan.inner, call.plan.channels, row(&call, shift_row))
            call.shift_u = call.shift_v = row(&call, shift_row)
            storage(x_).run(&call, NULL)
            if training:
                give(&call, running_mean_row, mean_)
                give(&call, running_var_row, var_)
        return True
    finally:
        give_back(&buffers)


def backward(
    dy, x, dx, dgamma, dbeta, work, forward_work, tuple axes, bint training, tuple schedule,
):
    """dx, dgamma and dbeta (if not None), from the work of forward. False: arrays refused."""
    cdef Call call
    cdef Buffers buffers
    prepare(&call, &buffers, axes, schedule)
    try:
        dy_ = borrow(&buffers, dy, ndarray)
        x_ = borrow(&buffers, x, ndarray)
        dx_ = borrow(&buffers, dx, ndarray, True)
        dgamma_ = borrow(&buffers, dgamma, ndarray, True)
        dbeta_ = borrow(&buffers, dbeta, ndarray, True)
        work_ = borrow(&buffers, work, ndarray, True)
        forward_ = borrow(&buffers, forward_work, ndarray)
        if (buffers.refused or not fits(&call, x_, work_) or work_.len != forward_.len
                or not alike(x_, dy_) or not alike(x_, dx_)
                or not is_vector(dgamma_, call.plan.channels)
                or not is_vector(dbeta_, call.plan.channels) or not is_apart(&buffers, dx_, dy_)):
            return False
        call.u = dy_.buf
        call.v = x_.buf
        call.x = call.v if training else call.u
        call.dy = call.u if training else NULL
        call.out = dx_.buf
        call.work = <double*>work_.buf
        call.forward_work = <double*>forward_.buf
        call.solve = solve_backward
        call.training = training
        call.sums = training or dgamma is not None or dbeta is not None
        call.shift_u = row(&call, shift_row)
        call.shift_v = call.forward_work + mean_row * call.plan.channels
        with nogil:
            memset(row(&call, shift_row), 0, call.plan.channels * sizeof(double))
            storage(x_).run(&call, NULL)
            give(&call, dgamma_row, dgamma_)
            give(&call, dbeta_row, dbeta_)
        return True
    finally:
        give_back(&buffers)
