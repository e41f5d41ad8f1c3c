"""Normalize in any geometry: what all norms have in common."""

import numpy as np
from numpy import empty  # a look-up less in each small call

from ._cache import Cache
from ._checks import insist
from ._geometry import (
    as_flat,
    as_input,
    as_mask,
    as_parameters,
    as_residual,
    batch_geometry,
    check_out,
    check_running,
    check_written,
)
from ._memory import empty_array
from ._runtime import kernels, schedule
from ._settings import settings_of
from ._store import commit

OVERWRITTEN = kernels.OVERWRITTEN
Arrays = kernels.Arrays


def normalize(given, arrays, geometry, settings, mask=None, counters=None, exchange=None):
    """Normalize ``arrays.x`` in any geometry; return y and the Cache.

    `given` is what x was converted from, `mask` what `as_mask` returns, and from what, or None.
    `counters` is a function of the number of values, `exchange` that with a group, or None: see
    `normalize_batch`.
    """
    x, y, residual = arrays.x, arrays.out, arrays.third
    nbytes = x.nbytes
    if y is None:
        y = arrays.out = empty_array(geometry.shape, x.dtype, nbytes)
    count = geometry.values
    if mask is not None:
        arrays.where, arrays.counts, count, _ = mask
    if counters is not None and exchange is None:
        counters = counters(count)
    way = schedule((2 if residual is None else 3) * nbytes)
    arrays.saved = empty(geometry.saved_size)  # as `allocate`: a frame less in each small call
    if geometry.scratch_size:
        arrays.scratch = empty(geometry.scratch_size)
    # The kernel takes the usual arrays as they are; it refuses what is to be converted or is wrong.
    taken = (
        geometry.direct
        and given is x
        and exchange is None
        and mask is None
        and kernels.forward(geometry.layout, settings, way, arrays, counters)
    )
    if not taken:
        whole = geometry
        geometry, arrays.gamma, arrays.beta = as_parameters(arrays.gamma, arrays.beta, geometry)
        if geometry is not whole:
            allocate(arrays, geometry)
        _check(given, arrays, mask, geometry, settings.training)
        if exchange is not None:
            count = exchange.merge(x, whole, mask, settings.eps, arrays)
            counters = counters and counters(count)
        if x.size:
            taken = normalize_checked(arrays, geometry, settings, way, counters)
        elif exchange is not None and arrays.running_mean is not None:
            exchange.track(arrays, settings, counters)
    cache = Cache(None if taken is OVERWRITTEN else x, arrays, geometry, settings, count)
    if residual is not None:
        cache._residual_dtype = arrays.third.dtype
        if settings.by_result:
            arrays.third = y
    if exchange is not None:
        cache._group = exchange.group
    return y, cache


def _check(given, arrays, mask, geometry, training):
    """Raise if anything is wrong with the arrays of a call, but for its parameters."""
    x = arrays.x
    is_array = isinstance(given, np.ndarray)
    residual = arrays.third
    if residual is not None:
        arrays.third = as_residual(residual, "residual", x)
    read = {
        "x": given if is_array else x,
        "where": None if mask is None else mask[3],
        "gamma": arrays.gamma,
        "beta": arrays.beta,
        "residual": residual,
    }
    running = {"running_mean": arrays.running_mean, "running_var": arrays.running_var}
    check_running(*running.values(), geometry, read if training else None)
    check_out(arrays.out, x)
    may_be = "x" if is_array and not training else None
    check_written({"out": arrays.out}, read | running, may_be)


def normalize_checked(arrays, geometry, settings, way, counters):
    """Run the kernel on plain arrays of one dimension, and store what it makes of copies."""
    parameters = arrays.gamma, arrays.beta
    arrays.gamma, arrays.beta = (as_flat(array, copy=False) for array in parameters)
    running = arrays.running_mean, arrays.running_var
    flat = [as_flat(array, copy=settings.training) for array in running]
    arrays.running_mean, arrays.running_var = flat
    if arrays.out is not None:
        arrays.out = np.asarray(arrays.out)
    taken = insist(kernels.forward(geometry.layout, settings, way, arrays))
    if settings.training and running[0] is not None:
        commit(zip(running, flat, strict=True), *([counters] if counters else []))
    arrays.gamma, arrays.beta = parameters  # for the Cache, of their own shapes
    return taken


def statistics(x, axis, where):
    """Return the Cache of `forward` without its y: the statistics of each channel."""
    x = as_input(x, "x")
    mask = None if where is None else as_mask(where, x.shape, axis)
    return local_statistics(x, batch_geometry(x.shape, axis), mask)


def local_statistics(x, geometry, mask):
    """As `statistics`, of a plain x, and what `as_mask` returns, or None."""
    settings = settings_of()
    arrays, count = Arrays(x, None, None, None), geometry.values
    if mask is not None:
        arrays.where, arrays.counts, count, *_ = mask
    allocate(arrays, geometry)
    if x.size:
        insist(kernels.forward(geometry.layout, settings, schedule(x.nbytes), arrays))
    return Cache(x, arrays, geometry, settings, count)


def exchange_with(group):
    """Return what a call has to do with the other members of a group, or None if there are none."""
    from ._group import exchange_of

    return exchange_of(group)


def allocate(arrays, geometry):
    """Make what the kernels save, and, unless a thread has it, what they need while they run."""
    arrays.saved = empty(geometry.saved_size)
    arrays.scratch = empty(geometry.scratch_size) if geometry.scratch_size else None
