"""Normalize in any geometry: what all norms have in common."""

import numpy as np
from numpy import empty  # a look-up less in each small call

from ._cache import Cache
from ._checks import insist
from ._geometry import (
    as_flat,
    as_input,
    as_mask,
    as_parameter,
    batch_geometry,
    check_out,
    check_running,
    check_written,
    commit,
    has_rows,
)
from ._memory import empty_like
from ._runtime import kernels, schedule

OVERWRITTEN = kernels.OVERWRITTEN


def normalize(
    given,
    x,
    geometry,
    gamma=None,
    beta=None,
    running_mean=None,
    running_var=None,
    training=True,
    momentum=0.0,
    eps=1e-5,
    out=None,
    mask=None,
    counters=None,
    *,
    centered=True,
):
    """Normalize in any geometry; return y and the Cache.

    `given` is what `x` was converted from, `mask` what `as_mask` returns, and from what, or None.
    RMS norm is not `centered`.
    """
    y = empty_like(x) if out is None else out
    saved = empty(geometry.saved_size)
    scratch = new_scratch(geometry) if geometry.scratch_size else None
    where = counts = None
    count = geometry.values
    direct = geometry.direct and given is x
    if mask is not None:
        where, counts, count, _ = mask
        direct = False
    if counters is not None:
        counters = counters(count)
    way = schedule(2 * x.nbytes)
    # The kernel takes the usual arrays as they are; it refuses what is to be converted or is wrong.
    arrays = x, y, where, counts, gamma, beta, running_mean, running_var, saved, scratch
    taken = direct and kernels.forward(
        arrays, geometry.layout, training, centered, momentum, eps, way, counters
    )
    if not taken:
        if geometry.per_sample and has_rows(gamma, beta, geometry):
            geometry = geometry.per_sample
            saved, scratch = empty(geometry.saved_size), new_scratch(geometry)
        gamma = as_parameter(gamma, "gamma", geometry.parameters)
        beta = as_parameter(beta, "beta", geometry.parameters)
        running = running_mean, running_var
        _check_forward_memory(given, x, y, mask, gamma, beta, *running, geometry, training)
        if x.size:
            flat = [as_flat(array, copy=training) for array in running]
            arrays = x, np.asarray(y), where, counts, gamma, beta, *flat, saved, scratch
            settings = training, centered, momentum, eps, way
            taken = insist(kernels.forward(arrays, geometry.layout, *settings))
            if training and running_mean is not None:
                commit(zip(running, flat, strict=True), *([counters] if counters else []))
    kept = None if taken is OVERWRITTEN else x
    return y, Cache(kept, geometry, saved, gamma, beta, training, centered, where, counts, count)


def statistics(x, axis, where):
    """Return the Cache of `forward` without its y: the statistics of each channel."""
    x = as_input(x, "x")
    geometry = batch_geometry(x.shape, axis)
    selected = (None, None, geometry.values) if where is None else as_mask(where, x.shape, axis)[:3]
    saved = empty(geometry.saved_size)
    if x.size:
        arrays = x, None, *selected[:2], *[None] * 4, saved, new_scratch(geometry)
        settings = True, True, 0.0, 1.0, schedule(x.nbytes)
        insist(kernels.forward(arrays, geometry.layout, *settings))
    return Cache(x, geometry, saved, None, None, True, True, *selected)


def new_scratch(geometry):
    """Return an array for what the kernels need while they run, None where a thread has it."""
    return empty(geometry.scratch_size) if geometry.scratch_size else None


def _check_forward_memory(
    given, x, y, mask, gamma, beta, running_mean, running_var, geometry, training
):
    source = given if isinstance(given, np.ndarray) else x
    where = None if mask is None else mask[3]
    read = {"x": source, "where": where, "gamma": gamma, "beta": beta}
    running = {"running_mean": running_mean, "running_var": running_var}
    check_running(running_mean, running_var, geometry.statistics, read if training else None)
    check_out(y, x)
    check_written({"out": y}, read | running, may_be=None if training else given)
