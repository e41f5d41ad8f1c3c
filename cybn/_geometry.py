"""The only place that looks at shapes, axes, dtypes and overlap."""

import math
from functools import lru_cache, wraps
from operator import index
from typing import NamedTuple

import numpy as np

from ._checks import EXPECTED_FLOAT, is_float
from ._memory import empty_like
from ._runtime import kernels
from ._store import rounded

is_plain = kernels.is_plain

CONTIGUOUS_ALIGNED = 0x101  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED


class Geometry(NamedTuple):
    """An array as (samples, outer, channels, inner), and what a norm makes of it."""

    layout: kernels.Layout | None  # as the kernels take it; None of an empty array
    direct: bool  # the kernels may see parameters unchecked: those of one axis, which they check
    statistics: tuple[int, ...]  # shape of mean and variance
    parameters: tuple[int, ...]  # shape of gamma and beta
    shape: tuple[int, ...]  # of the array
    kept: tuple[int, ...]  # that of parameters which all samples share, as keepdims leaves it
    inside: bool  # whether they belong to the values of a statistic, not to the statistics
    values: int  # of a statistic
    cells: int  # channels of all samples
    group: int  # cells of a statistic
    saved_size: int  # of what the kernels save for backward and the Cache
    scratch_size: int  # of what they need while they run; 0: nothing from here
    per_sample: "Geometry | None"  # that with gamma and beta for each sample, if it has any


def _geometry(
    axes, statistics, parameters, place, *, group=1, shared=False, inside=False, per_sample=None
):
    """Return the Geometry of (samples, outer, channels, inner); flags as the kernels have them.

    `place` is the array's shape, and where in it the axes of the parameters start and stop.
    """
    samples, outer, channels, inner = axes
    shape, start, stop = place
    kept = (1,) * start + shape[start:stop] + (1,) * (len(shape) - stop)
    cells = samples * channels
    values = outer * inner * group * (samples if shared else 1)
    layout, sizes = None, (kernels.SAVED_ROWS * cells, 0)
    if cells * values:
        layout = kernels.Layout(*axes, group, math.prod(parameters), shared, inside)
        sizes = layout.saved_size, layout.scratch_size
    direct = layout is not None and len(parameters) == 1
    shapes = statistics, parameters, shape, kept
    return Geometry(layout, direct, *shapes, inside, values, cells, group, *sizes, per_sample)


def _of_shape(*, tuples):
    """Cache the geometries of a kind, whose axis is an int, or perhaps a tuple of them."""

    def decorate(build):
        cached = lru_cache(maxsize=1024)(build)

        @wraps(build)
        def geometry(shape, axis, *options):
            if type(axis) is not int:
                axis = _as_axis(axis, tuples)
            return cached(shape, axis, *options) if options else cached(shape, axis)

        geometry.of_int = cached
        return geometry

    return decorate


def _as_axis(axis, tuples):
    """Return an axis as an int, or a tuple of them."""
    try:
        return tuple(map(index, axis)) if tuples and isinstance(axis, tuple) else index(axis)
    except TypeError:
        expected = "an int or a tuple of ints" if tuples else "an int"
        raise TypeError(f"axis: expected {expected}, got {axis!r}") from None


@_of_shape(tuples=True)
def batch_geometry(shape, axis):
    """Return the Geometry of statistics per channel, over all else. axis: int or adjacent ones."""
    start, stop = _adjacent(shape, axis)
    channels, place = shape[start:stop], (shape, start, stop)
    rows = None
    if start:
        axes = shape[0], *_around(shape[1:], start - 1, stop - 1)
        rows = _geometry(axes, channels, (shape[0], *channels), place, shared=True)
    return _geometry((1, *_around(*place)), channels, channels, place, per_sample=rows)


@_of_shape(tuples=False)
def sample_geometry(shape, axis, num_groups=None):
    """Return the Geometry of statistics per sample and channel, or group of them. axis: int."""
    position = _position(shape, axis)
    if position == 0:
        raise ValueError(f"axis: expected another axis than 0, that of the samples, got {axis}")
    samples, channels = shape[0], shape[position]
    groups = channels if num_groups is None else num_groups
    if groups < (channels > 0) or channels % max(groups, 1):
        raise ValueError(f"num_groups: expected a divisor of {channels} channels, got {groups}")
    axes = samples, *_around(shape[1:], position - 1, position)
    group, statistics = channels // groups if groups else 1, (samples, groups)
    place = shape, position, position + 1
    rows = _geometry(axes, statistics, (samples, channels), place, group=group)
    return _geometry(axes, statistics, (channels,), place, group=group, per_sample=rows)


@_of_shape(tuples=True)
def trailing_geometry(shape, axis):
    """Return the Geometry of statistics over the trailing axes. axis: int or adjacent ones."""
    start, stop = _adjacent(shape, axis, reduced=True)
    if stop != len(shape):
        raise ValueError(
            f"axis: expected the trailing axes of {len(shape)}, which are reduced, got {axis}"
            f"; {remedies().to_the_end(start, stop - start)}"
        )
    axes = 1, 1, math.prod(shape[:start]), math.prod(shape[start:])
    return _geometry(axes, shape[:start], shape[start:], (shape, start, stop), inside=True)


def _position(shape, axis):
    """Return an axis as a position from 0."""
    ndim = len(shape)
    if ndim == 0:
        raise ValueError("x: expected at least 1 dimension, got 0")
    if not -ndim <= axis < ndim:
        remedy = "; use x[None] for one sample, x[:, None] for one channel" if ndim == 1 else ""
        raise ValueError(
            f"axis: expected {-ndim} to {ndim - 1} for x of shape {shape}, got {axis}{remedy}"
        )
    return axis % ndim


def _adjacent(shape, axis, reduced=False):
    """Return where an axis, or a tuple of adjacent ones, starts and stops."""
    if not isinstance(axis, tuple):
        position = _position(shape, axis)
        return position, position + 1
    positions = [_position(shape, each) for each in axis]
    if not positions or positions != list(range(positions[0], positions[0] + len(positions))):
        remedy = "" if reduced else remedies().for_kept(shape, positions)
        raise ValueError(f"axis: expected adjacent axes in order, got {axis}{remedy}")
    return positions[0], positions[-1] + 1


def channel_axes(shape, axis):
    """Return where the axes of the channels start and stop. axis: int or adjacent ones."""
    return _adjacent(shape, _as_axis(axis, tuples=True))


def _around(shape, start, stop):
    """Return the lengths before, from start to stop, and behind."""
    return math.prod(shape[:start]), math.prod(shape[start:stop]), math.prod(shape[stop:])


def as_mask(where, shape, axis):
    """Return a copy of `where` in x's shape, and how many values of each channel it selects.

    The latter twice, as float64 for the kernels and as int64 in the channels' shape.
    """
    where = as_array(where, "where")
    if where.dtype != bool:
        raise TypeError(f"where: expected bool, got {where.dtype}; use where != 0")
    if where.view(np.uint8).max(initial=0) > 1:  # a view of other bytes: they are True, too
        where = where.view(np.uint8) != 0
    start, stop = channel_axes(shape, axis)
    lengths = (1,) * (len(shape) - where.ndim) + where.shape
    of_channels = math.prod(lengths[start:stop]) != 1
    try:
        mask = np.broadcast_to(where, shape)
    except ValueError:
        mask = None
    one_axis = not isinstance(axis, tuple)
    # (N,) of (N, N) would be taken for a mask of the channels.
    if mask is None or (one_axis and of_channels and where.ndim != len(shape)):
        remedy = remedies().for_mask(where, shape, axis) if one_axis else ""
        expected = f"shape {shape}, or one that broadcasts to it and has length 1 on axis {axis}"
        raise ValueError(f"where: expected {expected}, got {where.shape}{remedy}")
    one = mask if of_channels else mask[(slice(None),) * start + (slice(1),) * (stop - start)]
    others = (*range(start), *range(stop, len(shape)))
    counts = np.broadcast_to(np.count_nonzero(one, axis=others), shape[start:stop])
    values = empty_like(mask)
    values[...] = mask
    return values, counts.astype(np.float64).reshape(-1), counts.astype(np.int64)


def as_plain(array):
    """Return a float array, or None, as it is if it is plain, else a plain copy."""
    if array is None or is_plain(array):
        return array
    return np.require(array, array.dtype.newbyteorder("="), ("C", "A", "ENSUREARRAY"))


def as_flat(array, copy):
    """Return a float array, or None, as a plain one of one dimension, perhaps a copy."""
    if array is None:
        return None
    flat = as_plain(array).reshape(-1)
    return flat.copy() if copy else flat


def as_input(value, name, like=None):
    """Return `value` as a plain float array.

    With `like`, an array, it must have that shape, and gets that dtype.
    """
    if not is_plain(value):
        value = as_array(value, name)
        if value.dtype.kind in "iub":
            value = value.astype(np.result_type(value, np.float32))
        _check_float(value, name)
        value = as_plain(value)
    if like is not None:
        _check_shape(value, name, like.shape)
        if value.dtype != like.dtype:
            value = rounded(value, like.dtype)
    return value


def as_array(value, name):
    """Return what NumPy makes of `value`, if that has no mask and holds no objects."""
    if isinstance(value, np.ma.MaskedArray):
        remedy = f"use {name}.data, and perhaps where=~np.ma.getmaskarray({name})"
        raise TypeError(f"{name}: expected an array without a mask, got MaskedArray; {remedy}")
    try:
        array = np.asarray(value)
    except ValueError as error:  # a ragged list
        raise ValueError(f"{name}: expected an array of numbers, got {error}") from None
    except (TypeError, RuntimeError):  # tensors and tracers that are not to be read
        array = None
    if array is None or array.dtype == object:
        came = "objects" if type(value) is np.ndarray else type(value).__name__
        remedy = remedies().for_value(value, name)
        raise TypeError(f"{name}: expected an array of numbers, got {came}{remedy}")
    return array


def as_parameters(gamma, beta, geometry):
    """Return the Geometry that gamma and beta go with, and both as plain arrays, or None.

    With a row per sample they have one dimension more, and as keepdims leaves them as many as x;
    so have then the `parameters` of the Geometry.
    """
    arrays = {"gamma": gamma, "beta": beta}
    given = {name: as_input(a, name) for name, a in arrays.items() if a is not None}
    rows, kept = geometry.per_sample, geometry.kept
    first = next(iter(given.values()), None)
    if rows and first is not None and first.shape != kept:
        kept_rows = rows.parameters[0], *kept[1:]
        if first.ndim == len(rows.parameters) or first.shape == kept_rows:
            geometry, kept = rows, kept_rows
    for name, array in given.items():
        _check_parameter(array, name, (geometry.parameters, kept), geometry)
    if any(array.shape != geometry.parameters for array in given.values()):
        geometry = geometry._replace(parameters=kept)
    return geometry, given.get("gamma"), given.get("beta")


def as_residual(value, name, x):
    """Return a residual as a plain array: of x's shape, and of its dtype, or of float32."""
    value = as_input(value, name)
    _check_shape(value, name, x.shape)
    if value.dtype != x.dtype and not (x.itemsize == 2 and value.dtype == np.float32):
        expected = f"x's dtype, {x.dtype}" + (", or float32" if x.itemsize == 2 else "")
        got = f"{value.dtype}; use {name}.astype(x.dtype)"
        raise TypeError(f"{name}: expected {expected}, got {got}")
    return value


def check_running(running_mean, running_var, geometry, read=None):
    """Raise unless the running arrays are both None, or both float arrays of the statistics' shape.

    With `read`, a dict, they are to be written, apart from each other and from those arrays.
    """
    if running_mean is None and running_var is None:
        return
    running = {"running_mean": running_mean, "running_var": running_var}
    for name, array in running.items():
        if array is None:
            raise ValueError(f"{name}: expected an array beside the other running one, got None")
        if not is_plain(array):
            array = _checked_ndarray(array, name)
            _check_float(array, name)
        _check_parameter(array, name, (geometry.statistics, geometry.kept), geometry)
    if read is not None:
        check_written(running, read)


def check_out(out, like, name="out", dtype=None):
    """Raise unless `out` can receive a result of the shape and dtype of `like`."""
    dtype = dtype or like.dtype
    out = _checked_ndarray(out, name)
    if out.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, got {out.dtype}")
    _check_shape(out, name, like.shape)
    if out.flags.num & CONTIGUOUS_ALIGNED != CONTIGUOUS_ALIGNED:
        raise ValueError(f"{name}: expected a C-contiguous, aligned array, got another layout")


def check_written(written, others, may_be=None):
    """Raise unless arrays are writable and share no memory, one with another or with `others`.

    Both are dicts, from names; in `others` anything that is no array is passed over. Only the one
    named `may_be` may be written to though it is read, itself or all of its memory.
    """
    for name, array in written.items():
        if not array.flags.writeable:
            raise ValueError(f"{name}: expected a writable array, got a read-only one; use a copy")
    if _all_own([*written.values(), *others.values()]):
        return
    others = {name: array for name, array in others.items() if isinstance(array, np.ndarray)}
    for name, array in written.items():
        for other_name, other in (others | written).items():
            allowed = other_name == name or (other_name == may_be and _same_memory(array, other))
            if not allowed and np.shares_memory(array, other):
                raise ValueError(
                    f"{name}: expected memory of its own, got overlap with {other_name}; use a copy"
                )


def _same_memory(a, b):
    """Whether two arrays are the same one, or views of the same values in C order."""
    a, b = np.asarray(a), np.asarray(b)
    alike = a.dtype == b.dtype and a.shape == b.shape and a.strides == b.strides
    return alike and a.ctypes.data == b.ctypes.data


def _all_own(arrays):
    """Whether every array has an allocation of its own: quick, but may be too strict."""
    owners, count = set(), 0
    for array in arrays:
        if array is None:
            continue
        base = getattr(array, "base", array)
        if base is None:
            base = array
        elif type(base) is not np.ndarray or base.base is not None:
            return False
        owners.add(id(base))
        count += 1
    return len(owners) == count


def _check_float(array, name):
    if not is_float(array.dtype):
        remedy = remedies().for_dtype(array.dtype, name)
        raise TypeError(f"{name}: {EXPECTED_FLOAT}, got {array.dtype}{remedy}")


def _checked_ndarray(array, name):
    """Return a NumPy array, without what a subclass makes of it."""
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        remedy = remedies().for_written(array, name)
        raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}{remedy}")
    return np.asarray(array)


def _check_shape(array, name, shape):
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def _check_parameter(array, name, shapes, geometry):
    """Raise unless an array has one of two shapes, as which `geometry` wants it."""
    if array.shape not in shapes:
        expected = " or ".join(dict.fromkeys(map(str, shapes)))
        remedy = remedies().for_parameter(name, array.shape, geometry)
        raise ValueError(f"{name}: expected shape {expected}, got {array.shape}{remedy}")


def remedies():
    """Return the module that knows what usually helps, when something is refused."""
    from . import _remedies

    return _remedies
