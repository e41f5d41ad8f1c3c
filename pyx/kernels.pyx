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

from cython cimport freelist
from cython.parallel cimport parallel

from arrays cimport (
    BFLOAT16, FLOAT16, FLOAT32, FLOAT64, MASK, STORAGES, Array, Load, SetPasses, Storage, Store,
    Views, alike, is_apart, is_vector, same_shape, take,
)
from call cimport (
    Call, beta_row, center_row, dx_slope_row, invstd_row, mean_row, part_by_part, row,
    running_mean_row, running_var_row, saved, saved_rows, saved_values, scratch_values,
    shift_row, slope_row, take_parameters, var_row,
)
from cells cimport (
    fill, give, give_gradients, give_share, load_shift, set_counts, set_parameters, take_merged,
)
from maps cimport map_pass
from phases cimport arithmetic, plain_arithmetic, restore_arithmetic, run_phases
from plan cimport Plan, Shape, keep_columns, make_plan, plan_map
from rows cimport (
    ACTIVATION_COUNT, ACTIVATIONS, ADDED, CLIPPED, THREAD_SCRATCH, Activation, Fused, Mask,
    bfloat16, float16, narrow, real, thread_scratch, to_line, widen,
)
from solve cimport settle_backward, settle_forward, solve_backward, solve_forward
from sums cimport sum_pass

cdef extern from "thread.h" nogil:
    int thread_number() noexcept
    int thread_count() noexcept

cdef extern from "numpy/arrayobject.h":
    int NPY_BOOL, NPY_FLOAT, NPY_DOUBLE, NPY_HALF

MEAN, VAR, INVSTD, SAVED_ROWS = mean_row, var_row, invstd_row, saved_rows
OVERWRITTEN = 2
ACTIVATION_NAMES = [ACTIVATIONS[i].name.decode() for i in range(ACTIVATION_COUNT)]
WITH_SLOPE = [ACTIVATIONS[i].name.decode() for i in range(ACTIVATION_COUNT)
              if ACTIVATIONS[i].has_slope]


include "objects.pxi"


cdef bint is_residual(const Array* array, const Array* x) noexcept:
    """Whether it has x's shape, and its dtype, or is of float32 beside one of 16 bit."""
    return same_shape(array, x) and (
        array.storage == x.storage
        or (x.itemsize < <Py_ssize_t>sizeof(float) and array.storage.type_number == NPY_FLOAT))


cdef bint fits(Views* views, Layout layout) noexcept:
    """Whether the arrays have the sizes that the plan goes by."""
    cdef const Shape* shape = &layout.plan.shape
    cdef Py_ssize_t size = layout.plan.size
    return (not views.refused and views.x.size == size
            and (views.where.data == NULL or views.where.size == size)
            and (views.third.data == NULL or is_residual(&views.third, &views.x))
            and (views.dresidual.data == NULL or is_residual(&views.dresidual, &views.x))
            and is_vector(&views.counts, shape.channels)
            and is_vector(&views.gamma, shape.parameters)
            and is_vector(&views.beta, shape.parameters)
            and views.saved.size == layout.saved_size
            and views.saved.itemsize == sizeof(double)
            and views.scratch.size == layout.scratch_size
            and (views.scratch.data == NULL or views.scratch.itemsize == sizeof(double))
            and is_vector(&views.merged, 2 * shape.channels)
            and (views.merged.data == NULL or views.merged.itemsize == sizeof(double)))


cdef void prepare(
    Call* call, Fused* fused, const Views* views, Layout layout, Settings settings,
    Schedule schedule,
) noexcept:
    """Fill in what both directions have in common."""
    call.plan = layout.plan
    call.from_memory, call.stream = schedule.from_memory, schedule.stream
    call.cache_size, call.threads = schedule.cache_size, schedule.threads
    call.training, call.centered = settings.training, settings.centered
    call.momentum, call.eps = settings.momentum, settings.eps
    fused.activation, fused.training = settings.row, call.training
    fused.limits.slope, fused.limits.low = settings.slope, views.x.storage.underflow
    if settings.row != NULL:
        fused.limits.highest = settings.row.highest
        # Half an ulp below 6, which lies between 4 and 8, it is rounded to 6.
        fused.limits.high = settings.row.highest - 4 * views.x.storage.roundoff
    fused.third, fused.dresidual = views.third.data, views.dresidual.data
    fused.third_is_float = views.third.storage != views.x.storage
    fused.dresidual_is_float = views.dresidual.storage != views.x.storage
    fused.dresidual_streams = (
        call.stream and views.dresidual.storage == views.x.storage
        and to_line(views.dresidual.data) == to_line(views.out.data))
    fused.is_early = False
    call.fused = NULL
    if fused.activation != NULL or fused.third != NULL or fused.dresidual != NULL:
        call.fused = fused
    call.how = 0
    if settings.row != NULL and settings.row.clips and views.where.data == NULL:
        call.how = CLIPPED if fused.third == NULL else ADDED
    call.gamma = call.beta = NULL
    call.columns = False
    call.out, call.itemsize = views.out.data, views.x.itemsize
    call.where, call.saved = <Mask>views.where.data, <double*>views.saved.data
    call.scratch = <double*>views.scratch.data
    if call.scratch == NULL:
        call.scratch = thread_scratch()


cdef void run(Call* call) noexcept nogil:
    """All phases, in one parallel region, if in any."""
    cdef bint again = False
    call.by_part = part_by_part(call)
    # While a part is written, the next one is read.
    if call.columns and call.by_part and call.plan.map_ahead:
        call.plan.map_ahead = call.plan.part_tiles * call.plan.shape.inner
    if call.threads == 1:
        run_phases(call, 0, 1, &again)
        return
    with parallel(num_threads=call.threads):
        run_phases(call, thread_number(), thread_count(), &again)


def is_plain(array):
    """Whether the kernels can read an array as it is."""
    cdef Views views
    views.storages, views.count, views.refused = STORAGE, 0, array is None
    take(&views, &views.x, array, ndarray)
    return not views.refused


def round_to(array, values):
    """Round values to the dtype of an array, into it. False: one of them refused."""
    cdef Views views
    cdef arithmetic before
    cdef double* some = thread_scratch()
    cdef Py_ssize_t start = 0, count
    views.storages, views.count, views.refused = STORAGE, 0, array is None or values is None
    take(&views, &views.out, array, ndarray, True)
    take(&views, &views.x, values, ndarray)
    if views.refused or views.out.size != views.x.size or not is_apart(&views, &views.out, NULL):
        return False
    before = plain_arithmetic()
    while start < views.x.size:
        count = min(views.x.size - start, THREAD_SCRATCH)
        views.x.storage.load(views.x.data + start * views.x.itemsize, 1, count, some)
        views.out.storage.store(some, count, views.out.data + start * views.out.itemsize)
        start += count
    restore_arithmetic(before)
    return True


cdef bint forward_fits(Views* views, Layout layout, bint training) noexcept:
    cdef Py_ssize_t channels = layout.plan.shape.channels
    return (fits(views, layout)
            and (views.out.data == NULL or alike(&views.x, &views.out))
            and is_vector(&views.running_mean, channels)
            and is_vector(&views.running_var, channels)
            and (views.running_mean.data == NULL) == (views.running_var.data == NULL)
            and is_apart(views, &views.out, NULL if training else &views.x)
            and (not training or (is_apart(views, &views.running_mean, NULL)
                                  and is_apart(views, &views.running_var, NULL))))


def forward(
    Layout layout not None, Settings settings not None, Schedule schedule not None,
    Arrays arrays not None, tuple counters=None,
):
    """The statistics of x, if training, and if there is an `out`, y. OVERWRITTEN: over x itself.

    False: arrays refused. `counters`, an object and new values of its attributes, change together
    with the running arrays: no signal handler comes in between.
    """
    cdef Call call
    cdef Fused fused
    cdef Views views
    cdef arithmetic before
    cdef bint training = settings.training
    view(&views, arrays, True, training)
    if not forward_fits(&views, layout, training):
        return False
    prepare(&call, &fused, &views, layout, settings, schedule)
    cdef Py_ssize_t cells = call.plan.cells
    call.u = call.x = views.x.data
    call.v = call.dy = NULL
    call.settle, call.solve = settle_forward, solve_forward
    call.sums = training and views.merged.data == NULL
    call.shift = row(&call, shift_row)
    call.coefficients[0], call.coefficients[1] = saved(&call, mean_row), saved(&call, slope_row)
    call.coefficients[2] = saved(&call, beta_row)
    fused.u, fused.out = call.u, call.out
    views.x.storage.set_passes(&call, views.x.data)
    plan_map(&call.plan, call.from_memory, not call.sums, call.threads)
    with nogil:
        before = plain_arithmetic()
        set_parameters(&call, &views.gamma, &views.beta)
        if training:
            set_counts(&call, &views.counts)
            if call.sums:
                load_shift(&call, &views.x)
            else:
                take_merged(&call, &views.merged, saved(&call, mean_row), saved(&call, var_row))
            fill(&views.running_mean, 0, cells, row(&call, running_mean_row))
            fill(&views.running_var, 1, cells, row(&call, running_var_row))
        else:
            fill(&views.running_mean, 0, cells, saved(&call, mean_row))
            fill(&views.running_var, 1, cells, saved(&call, var_row))
        run(&call)
        if training:
            give(row(&call, running_mean_row), &views.running_mean)
            give(row(&call, running_var_row), &views.running_var)
        restore_arithmetic(before)
    if counters is not None:
        for name, value in (<dict?>counters[1]).items():
            setattr(counters[0], name, value)
    return OVERWRITTEN if views.out.data == views.x.data else True


def backward(
    Layout layout not None, Settings settings not None, Schedule schedule not None,
    Arrays arrays not None,
):
    """What there is of dx, dgamma and dbeta, from what forward saved. False: arrays refused."""
    cdef Call call
    cdef Fused fused
    cdef Views views
    cdef arithmetic before
    cdef bint training = settings.training
    cdef bint wanted = arrays.gamma is not None or arrays.beta is not None
    cdef bint inside = layout.plan.shape.inside
    view(&views, arrays, False, False)
    if not (fits(&views, layout) and alike(&views.x, &views.dy)
            and (views.out.data == NULL or alike(&views.x, &views.out))
            and is_apart(&views, &views.out, &views.dy)
            and is_apart(&views, &views.dresidual, &views.dy)):
        return False
    prepare(&call, &fused, &views, layout, settings, schedule)
    call.u, call.v = views.dy.data, views.x.data
    call.x, call.dy = call.v, call.u
    if not training and call.fused == NULL:
        call.x, call.dy = call.u, NULL
    call.settle, call.solve = settle_backward, solve_backward
    call.sums = (training or wanted) and (views.merged.data == NULL or views.out.data == NULL)
    call.columns = inside and wanted
    if inside:
        take_parameters(&call)
    call.shift = saved(&call, mean_row)
    call.coefficients[2], call.coefficients[3] = row(&call, center_row), saved(&call, slope_row)
    call.coefficients[4] = saved(&call, beta_row)
    if call.dy != NULL:
        call.coefficients[0], call.coefficients[1] = call.shift, row(&call, dx_slope_row)
    else:       # dx = (dy - 0) * scale + 0
        call.coefficients[0], call.coefficients[1] = call.coefficients[2], call.coefficients[3]
    # A derivative of 0 or 1 is exact: what the residual gets is then dy of the norm, and streamed
    # if it has left the cache before it is mapped.
    if training and call.how == ADDED and views.dresidual.storage == views.x.storage:
        fused.is_early, call.dy = True, views.dresidual.data
        if part_by_part(&call) or 2 * views.x.nbytes < call.cache_size:
            fused.dresidual_streams = False
    fused.u, fused.out = call.u, call.out
    views.x.storage.set_passes(&call, views.x.data)
    plan_map(&call.plan, call.from_memory, not call.sums, call.threads)
    with nogil:
        before = plain_arithmetic()
        if call.columns:
            keep_columns(&call.plan)
        set_counts(&call, &views.counts)
        if views.merged.data != NULL and not call.sums:
            take_merged(&call, &views.merged, row(&call, center_row), row(&call, dx_slope_row))
        run(&call)
        if views.merged.data != NULL and call.sums:
            give_share(&views.merged, row(&call, center_row), row(&call, dx_slope_row))
        if call.columns or (call.sums and not inside):
            give_gradients(&call, &views.gamma, &views.beta)
        restore_arithmetic(before)
    return True
