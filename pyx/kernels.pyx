"""Normalization without the GIL: the entry points, compiled once for each CPU level.

Design
------
An array is (samples, outer, channels, inner); `plan.pxd` cuts it into tiles, blocks and rows of
lanes. A norm runs in two phases. The first sums over every cell (a channel of a sample), the second
maps element by element (`sums.pxd` and `maps.pxd`, on the leaves of `rows.pxd`); between them four
coefficients are made for every cell (`solve.pxd`), from sums that are made once more where K was
far from the mean:

    forward    sums of x - K and (x - K)**2        y  = (x - mean) * slope + beta
    backward   sums of dy and dy * (x - mean)      dx = (x - mean) * slope + (dy * scale - center)

Both directions are one `run`, with other arrays in its `Call`, and either phase can be left out.
A norm is a shape, and what gamma and beta are indexed by: the cell, or, if they are `inside`, the
place of a value in its cell.

                         samples  channels  group   inner     gamma
    batch                1        C         1       H W       by channel
    conditional batch    N        C         1       H W       by cell, statistics are `shared`
    instance             N        C         1       H W       by channel
    group                N        C         C / G   H W       by channel
    layer, RMS           1        rows      1       features  inside
"""

from numpy import ndarray

from cython.parallel cimport parallel
from libc.string cimport memchr, memset

from arrays cimport (
    BFLOAT16, FLOAT16, FLOAT32, FLOAT64, Array, Arrays, alike, is_apart, is_vector, take,
)
from call cimport (
    Call, center_row, count_row, dx_slope_row, inner_row, invstd_row, mean_row, padded,
    part_by_part, product_row, row, running_mean_row, running_var_row, saved, saved_rows,
    saved_values, scratch_values, shift_row, slope_row, sum_row, take_parameters, var_row,
)
from maps cimport map_pass, stream_fence
from plan cimport (
    Plan, Shape, Tile, ceil_div, keep_columns, make_plan, part_stop, plan_map, quotient, tile_at,
)
from rows cimport (
    THREAD_SCRATCH, Mask, bfloat16, float16, halve, narrow, real, repeat, thread_scratch, widen,
)
from solve cimport settle_backward, settle_forward, solve_backward, solve_forward, was_far
from sums cimport sum_pass

cdef extern from "thread.h" nogil:
    ctypedef unsigned long arithmetic
    arithmetic plain_arithmetic() noexcept
    void restore_arithmetic(arithmetic) noexcept
    void raise_flag(bint* flag) noexcept
    bint flag_is_raised(const bint* flag) noexcept
    int thread_number() noexcept
    int thread_count() noexcept
    void barrier() noexcept

MEAN, VAR, INVSTD, SAVED_ROWS = mean_row, var_row, invstd_row, saved_rows
OVERWRITTEN = 2

cdef enum Phase:
    PARTS           # all that follows, part by part
    SUMS
    SETTLE
    SUMS_AGAIN      # of cells that were not settled
    SETTLE_AGAIN
    SOLVE
    MAP


cdef void run_tiles(
    const Call* call, Phase phase, Py_ssize_t first, Py_ssize_t stop, Py_ssize_t block,
) noexcept nogil:
    """Sum or map a block of neighbouring tiles."""
    cdef Py_ssize_t index
    cdef Tile tile
    for index in range(first, stop):
        if phase == MAP:
            call.map_pass(call, call.x, index, block)
            continue
        if phase == SUMS_AGAIN:
            tile = tile_at(&call.plan, index)
            if not was_far(call, tile.first_cell, tile.first_cell + tile.cells):
                continue
        call.sum_pass(call, call.u, index, block)


cdef bint run_part(const Call* call, Phase phase, Py_ssize_t part) noexcept nogil:
    """A phase of one part, or all, while it is in the cache. True: it is to be summed again."""
    cdef Py_ssize_t first = part * call.plan.part_tiles
    cdef Py_ssize_t block, stop = part_stop(&call.plan, part)
    cdef Tile first_tile = tile_at(&call.plan, first)
    cdef Tile last_tile = tile_at(&call.plan, stop - 1)
    cdef Py_ssize_t cell = first_tile.first_cell
    cdef Py_ssize_t stop_cell = last_tile.first_cell + last_tile.cells
    if phase == SETTLE or phase == SETTLE_AGAIN:
        return call.settle(call, cell, stop_cell, phase == SETTLE)
    if phase == SOLVE:
        call.solve(call, cell, stop_cell)
        return False
    for block in range(call.plan.blocks):
        run_tiles(call, SUMS, first, stop, block)
    if call.settle(call, cell, stop_cell, True):
        for block in range(call.plan.blocks):
            run_tiles(call, SUMS_AGAIN, first, stop, block)
        call.settle(call, cell, stop_cell, False)
    call.solve(call, cell, stop_cell)
    if call.out != NULL:
        for block in range(call.plan.map_blocks):
            run_tiles(call, MAP, first, stop, block)
    return False


cdef void run_share(
    const Call* call, Phase phase, Py_ssize_t share, Py_ssize_t shares, bint* again,
) noexcept nogil:
    """One thread's share of a phase."""
    cdef bint of_tiles = phase in (SUMS, SUMS_AGAIN, MAP)
    cdef Py_ssize_t tiles = call.plan.tiles
    cdef Py_ssize_t blocks = call.plan.map_blocks if phase == MAP else call.plan.blocks
    # Tiles of a part that add to the same sums of columns stay together.
    cdef Py_ssize_t together = call.plan.part_tiles if call.columns and phase == SUMS else 1
    cdef Py_ssize_t bundles = ceil_div(tiles, together)
    cdef Py_ssize_t tasks = bundles * blocks if of_tiles else call.plan.parts
    cdef Py_ssize_t task, turn, first
    for task in range(quotient(tasks * share, shares), quotient(tasks * (share + 1), shares)):
        if not of_tiles:
            if run_part(call, phase, task):
                raise_flag(again)
            continue
        # The map goes backwards: what was summed last is still in the cache.
        turn = tasks - 1 - task if phase == MAP and call.sums else task
        first = turn % bundles * together
        run_tiles(call, phase, first, min(tiles, first + together), turn // bundles)


cdef void run_phases(
    const Call* call, Py_ssize_t share, Py_ssize_t shares, bint* again,
) noexcept nogil:
    """Sum, settle, solve, map: one thread's share of all."""
    cdef arithmetic before = plain_arithmetic()
    cdef Phase first = PARTS if call.by_part else SUMS if call.sums else SOLVE
    cdef Phase last = PARTS if call.by_part else MAP if call.out != NULL else SOLVE
    cdef int phase
    for phase in range(first, last + 1):
        if (phase != SUMS_AGAIN and phase != SETTLE_AGAIN) or flag_is_raised(again):
            run_share(call, <Phase>phase, share, shares, again)
            if shares > 1:
                barrier()
    stream_fence()
    restore_arithmetic(before)


cdef void run(const Call* call) noexcept nogil:
    """All phases, in one parallel region, if in any."""
    cdef bint again = False
    if call.threads == 1:
        run_phases(call, 0, 1, &again)
        return
    with parallel(num_threads=call.threads):
        run_phases(call, thread_number(), thread_count(), &again)


cdef void set_passes(Call* call, const real* x) noexcept nogil:
    call.sum_pass, call.map_pass = sum_pass(call, x), map_pass(call, x)


cdef void load(const real* values, Py_ssize_t stride, Py_ssize_t count, double* to) noexcept nogil:
    cdef Py_ssize_t c
    if stride == 1:
        widen(values, to, count)
        return
    for c in range(count):
        widen(values + c * stride, to + c, 1)


cdef void store(const double* values, Py_ssize_t count, real* to) noexcept nogil:
    narrow(values, to, count, False)


ctypedef void (*SetPasses)(Call*, const void*) noexcept nogil
ctypedef void (*Load)(const void*, Py_ssize_t, Py_ssize_t, double*) noexcept nogil
ctypedef void (*Store)(const double*, Py_ssize_t, void*) noexcept nogil

cdef struct Storage:    # what can be done with an array of a dtype
    SetPasses set_passes
    Load load
    Store store

cdef Storage STORAGE[4]
STORAGE[FLOAT32] = Storage(<SetPasses>set_passes[float], <Load>load[float], <Store>store[float])
STORAGE[FLOAT64] = Storage(<SetPasses>set_passes[double], <Load>load[double], <Store>store[double])
STORAGE[FLOAT16] = Storage(
    <SetPasses>set_passes[float16], <Load>load[float16], <Store>store[float16])
STORAGE[BFLOAT16] = Storage(
    <SetPasses>set_passes[bfloat16], <Load>load[bfloat16], <Store>store[bfloat16])


cdef inline const Storage* storage(const Array* array) noexcept nogil:
    return &STORAGE[array.storage]


cdef class Layout:
    """The plan for a shape of at least one value; made once, used by many calls."""

    cdef Plan plan
    cdef readonly Py_ssize_t saved_size
    cdef readonly Py_ssize_t scratch_size   # 0 if a thread has so much of its own
    cdef tuple axes

    def __cinit__(self, *axes):
        cdef Shape s
        (s.samples, s.outer, s.channels, s.inner, s.group, s.parameters, s.shared, s.inside) = axes
        self.plan = make_plan(s)
        self.saved_size = saved_values(&self.plan)
        self.scratch_size = scratch_values(&self.plan)
        if self.scratch_size <= THREAD_SCRATCH:
            self.scratch_size = 0
        self.axes = axes

    def __reduce__(self):
        return Layout, self.axes


cdef int prepare(Call* call, Arrays* arrays, Layout layout, tuple schedule) except -1:
    call.plan = layout.plan
    call.from_memory, call.stream, call.cache_size, call.threads = schedule
    call.gamma = call.beta = NULL
    call.columns = False
    arrays.count, arrays.refused = 0, False
    return 0


cdef bint fits(
    Layout layout, const Array* x, const Array* where, const Array* counts, const Array* kept,
    const Array* scratch,
) noexcept:
    """Whether arrays have the sizes that the plan goes by."""
    cdef Py_ssize_t size = layout.plan.size
    return (x.size == size and (where.data == NULL or where.size == size)
            and is_vector(counts, layout.plan.shape.channels)
            and kept.size == layout.saved_size and kept.itemsize == sizeof(double)
            and scratch.size == layout.scratch_size
            and (scratch.data == NULL or scratch.itemsize == sizeof(double)))


cdef void fill(const Array* array, double default, Py_ssize_t count, double* to) noexcept nogil:
    """Fill `to` with an array, repeated, or with its default."""
    to[0] = default
    if array.data != NULL:
        storage(array).load(array.data, 1, array.size, to)
    repeat(to, count, array.size if array.data != NULL else 1)


cdef void set_parameters(Call* call, const Array* gamma, const Array* beta) noexcept nogil:
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
    fill(beta, 0, call.plan.cells, row(call, center_row))


cdef void set_counts(const Call* call, const Array* counts) noexcept nogil:
    """Values of each statistic: those that a mask selects, or all."""
    cdef const Shape* s = &call.plan.shape
    fill(counts, <double>s.outer * s.inner * s.group * (s.samples if s.shared else 1),
         call.plan.cells, row(call, count_row))


cdef void give(const double* values, const Array* array) noexcept nogil:
    """Store values into an array, if there is one."""
    if array.data != NULL:
        storage(array).store(values, array.size, array.data)


cdef void load_first_selected(const Call* call, const Array* x) noexcept nogil:
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
                    storage(x).load(values + (<Mask>found - call.where) * x.itemsize, 0, 1,
                                    shift + c)
            left = still
        line += s.channels * s.inner


cdef void load_shift(const Call* call, const Array* x) noexcept nogil:
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
            storage(x).load(values + i * s.outer * s.channels * s.inner * x.itemsize, s.inner,
                            s.channels, shift + i * s.channels)
    if s.group > 1:
        for i in range(call.plan.cells):
            shift[i] = shift[i // s.group * s.group]
    if s.shared:
        repeat(shift, call.plan.cells, s.channels)


def is_plain(array):
    """Whether the kernels can read an array as it is."""
    cdef Arrays arrays
    arrays.count, arrays.refused = 0, array is None
    take(&arrays, array, ndarray)
    return not arrays.refused


def round_to(array, values):
    """Round values to the dtype of an array, into it. False: one of them refused."""
    cdef Arrays arrays
    cdef arithmetic before
    cdef double* some = thread_scratch()
    cdef Py_ssize_t start = 0, count
    arrays.count, arrays.refused = 0, array is None or values is None
    to = take(&arrays, array, ndarray, True)
    given = take(&arrays, values, ndarray)
    if arrays.refused or to.size != given.size or not is_apart(&arrays, to, NULL):
        return False
    before = plain_arithmetic()
    while start < to.size:
        count = min(to.size - start, THREAD_SCRATCH)
        storage(given).load(given.data + start * given.itemsize, 1, count, some)
        storage(to).store(some, count, to.data + start * to.itemsize)
        start += count
    restore_arithmetic(before)
    return True


cdef double* scratch_of(const Array* scratch) noexcept nogil:
    return <double*>scratch.data if scratch.data != NULL else thread_scratch()


def forward(
    tuple given not None, Layout layout not None, bint training, bint centered, double momentum,
    double eps, tuple schedule not None, tuple counters=None,
):
    """The statistics of x, if training, and if y is not None, y. OVERWRITTEN: over x itself.

    False: arrays refused. `given` are the arrays, or None for each that there is not. `where` is a
    mask; `counts` are then the values of each channel that it selects. `counters`, an object and
    new values of its attributes, change together with the running arrays: no signal handler comes
    in between.
    """
    x, y, where, counts, gamma, beta, running_mean, running_var, kept, scratch = given
    cdef Call call
    cdef Arrays arrays
    cdef arithmetic before
    prepare(&call, &arrays, layout, schedule)
    cdef Plan* plan = &call.plan
    cdef Shape* shape = &plan.shape
    x_ = take(&arrays, x, ndarray)
    y_ = take(&arrays, y, ndarray, True)
    where_ = take(&arrays, where, ndarray, False, True)
    counts_ = take(&arrays, counts, ndarray)
    gamma_ = take(&arrays, gamma, ndarray)
    beta_ = take(&arrays, beta, ndarray)
    mean_ = take(&arrays, running_mean, ndarray, training)
    var_ = take(&arrays, running_var, ndarray, training)
    kept_ = take(&arrays, kept, ndarray, True)
    scratch_ = take(&arrays, scratch, ndarray, True)
    if (arrays.refused or not fits(layout, x_, where_, counts_, kept_, scratch_)
            or (y_.data != NULL and not alike(x_, y_))
            or not is_vector(gamma_, shape.parameters) or not is_vector(beta_, shape.parameters)
            or not is_vector(mean_, shape.channels) or not is_vector(var_, shape.channels)
            or (mean_.data == NULL) != (var_.data == NULL)
            or not is_apart(&arrays, y_, NULL if training else x_)):
        return False
    if training and not (is_apart(&arrays, mean_, NULL) and is_apart(&arrays, var_, NULL)):
        return False
    call.u = call.x = x_.data
    call.v = call.dy = NULL
    call.out = y_.data
    call.where, call.saved = <Mask>where_.data, <double*>kept_.data
    call.scratch = scratch_of(scratch_)
    call.settle, call.solve = settle_forward, solve_forward
    call.sums = call.training = training
    call.centered, call.momentum, call.eps = centered, momentum, eps
    call.shift = row(&call, shift_row)
    call.coefficients[0], call.coefficients[1] = saved(&call, mean_row), saved(&call, slope_row)
    call.coefficients[2] = row(&call, center_row)
    call.itemsize = x_.itemsize
    storage(x_).set_passes(&call, x_.data)
    plan_map(plan, call.from_memory, not call.sums, call.threads)
    call.by_part = part_by_part(&call)
    with nogil:
        before = plain_arithmetic()
        set_parameters(&call, gamma_, beta_)
        if training:
            set_counts(&call, counts_)
            load_shift(&call, x_)
            fill(mean_, 0, plan.cells, row(&call, running_mean_row))
            fill(var_, 1, plan.cells, row(&call, running_var_row))
        else:
            fill(mean_, 0, plan.cells, saved(&call, mean_row))
            fill(var_, 1, plan.cells, saved(&call, var_row))
        run(&call)
        if training:
            give(row(&call, running_mean_row), mean_)
            give(row(&call, running_var_row), var_)
        restore_arithmetic(before)
    if counters is not None:
        for name, value in (<dict?>counters[1]).items():
            setattr(counters[0], name, value)
    return OVERWRITTEN if y_.data == x_.data else True


cdef void give_gradients(const Call* call, const Array* dgamma, const Array* dbeta) noexcept nogil:
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


def backward(
    tuple given not None, Layout layout not None, bint training, bint centered,
    tuple schedule not None,
):
    """dx, dgamma and dbeta (if not None), from what forward saved. False: arrays refused."""
    dy, x, dx, where, counts, dgamma, dbeta, kept, scratch = given
    cdef Call call
    cdef Arrays arrays
    cdef arithmetic before
    cdef bint wanted = dgamma is not None or dbeta is not None
    prepare(&call, &arrays, layout, schedule)
    cdef Plan* plan = &call.plan
    cdef Shape* shape = &plan.shape
    dy_ = take(&arrays, dy, ndarray)
    x_ = take(&arrays, x, ndarray)
    dx_ = take(&arrays, dx, ndarray, True)
    where_ = take(&arrays, where, ndarray, False, True)
    counts_ = take(&arrays, counts, ndarray)
    dgamma_ = take(&arrays, dgamma, ndarray, True)
    dbeta_ = take(&arrays, dbeta, ndarray, True)
    kept_ = take(&arrays, kept, ndarray)
    scratch_ = take(&arrays, scratch, ndarray, True)
    if (arrays.refused or not fits(layout, x_, where_, counts_, kept_, scratch_)
            or not alike(x_, dy_) or not alike(x_, dx_)
            or not is_vector(dgamma_, shape.parameters)
            or not is_vector(dbeta_, shape.parameters) or not is_apart(&arrays, dx_, dy_)):
        return False
    call.u, call.v = dy_.data, x_.data
    call.x = call.v if training else call.u
    call.dy = call.u if training else NULL
    call.out = dx_.data
    call.where, call.saved = <Mask>where_.data, <double*>kept_.data
    call.scratch = scratch_of(scratch_)
    call.settle, call.solve = settle_backward, solve_backward
    call.training, call.centered = training, centered
    call.sums = training or wanted
    call.columns = shape.inside and wanted
    if shape.inside:
        take_parameters(&call)
    call.shift = saved(&call, mean_row)
    call.coefficients[2], call.coefficients[3] = row(&call, center_row), saved(&call, slope_row)
    if training:
        call.coefficients[0], call.coefficients[1] = call.shift, row(&call, dx_slope_row)
    else:       # dx = (dy - 0) * scale + 0
        call.coefficients[0], call.coefficients[1] = call.coefficients[2], call.coefficients[3]
    call.itemsize = x_.itemsize
    storage(x_).set_passes(&call, x_.data)
    plan_map(plan, call.from_memory, not call.sums, call.threads)
    with nogil:
        before = plain_arithmetic()
        if call.columns:
            keep_columns(plan)
        call.by_part = part_by_part(&call)
        # While a part is written, the next one is read.
        if call.columns and call.by_part and plan.map_ahead:
            plan.map_ahead = plan.part_tiles * shape.inner
        set_counts(&call, counts_)
        run(&call)
        if call.columns or (call.sums and not shape.inside):
            give_gradients(&call, dgamma_, dbeta_)
        restore_arithmetic(before)
    return True
