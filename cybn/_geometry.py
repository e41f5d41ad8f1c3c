"""The only place that looks at shapes, axes, dtypes and overlap."""

import math
from functools import lru_cache
from operator import index
from typing import NamedTuple

import numpy as np

from ._runtime import kernels

is_plain = kernels.is_plain

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
CONTIGUOUS_ALIGNED = 0x101  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED


class Geometry(NamedTuple):
    """An array as (outer, channels, inner), and what a kernel needs to know of it."""

    axes: tuple[int, int, int]  # outer, channels, inner
    channels: int
    values: int  # of a channel
    work_shape: tuple[int, int]  # of the kernels' work array


def geometry_of(shape, axis):
    """Return the Geometry of an array of this shape with its channels on this axis."""
    try:
        return _geometry_of(shape, axis)
    except TypeError:
        raise TypeError(f"axis: expected an int, got {type(axis).__name__}") from None


# typed: axis 1.0 is not axis 1
@lru_cache(maxsize=1024, typed=True)
def _geometry_of(shape, axis):
    ndim = len(shape)
    if ndim == 0:
        raise ValueError("x: expected at least 1 dimension, got 0")
    position = index(axis)
    if not -ndim <= position < ndim:
        raise ValueError(
            f"axis: expected {-ndim} to {ndim - 1} for an array of {ndim} dimensions, got {axis}"
        )
    position %= ndim
    outer, channels = math.prod(shape[:position]), shape[position]
    inner = math.prod(shape[position + 1 :])
    empty = outer * channels * inner == 0
    blocks = 0 if empty else kernels.count_blocks(outer, channels, inner)
    work_shape = (kernels.WORK_ROWS + 2 * blocks, channels)
    return Geometry((outer, channels, inner), channels, outer * inner, work_shape)


def as_plain(array):
    """Return a float array, or None, as it is if it is plain, else a plain copy."""
    if array is None or is_plain(array):
        return array
    return np.require(array, array.dtype.newbyteorder("="), ("C", "A", "ENSUREARRAY"))


def as_input(value, name, like=None):
    """Return `value` as a plain array of float32 or float64.

    With `like`, an array, it must have that shape, and gets that dtype.
    """
    if not is_plain(value):
        value = as_array(value, name)
        if value.dtype.kind in "iub":
            value = value.astype(np.result_type(value, np.float32))
        _check_float(value, name)
    if like is not None:
        _check_shape(value, name, like.shape)
        if value.dtype is not like.dtype:
            value = value.astype(like.dtype)
    return as_plain(value)


def as_array(value, name):
    """Return what NumPy makes of `value`, if it has no mask."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got {type(value).__name__}")
    try:
        return np.asarray(value)
    except ValueError as error:  # a ragged list
        raise ValueError(f"{name}: expected an array of numbers, got {error}") from None


def as_parameter(value, name, channels):
    """Return gamma or beta as a plain array of shape (C,), or None."""
    if value is None:
        return None
    if not is_plain(value):
        value = as_array(value, name)
        _check_float(value, name)
    _check_shape(value, name, (channels,))
    return as_plain(value)


def check_running(running_mean, running_var, channels):
    """Raise unless the running arrays are both None, or both float arrays of shape (C,)."""
    if running_mean is None and running_var is None:
        return
    for array, name in (running_mean, "running_mean"), (running_var, "running_var"):
        if array is None:
            raise ValueError(f"{name}: expected an array beside the other running one, got None")
        if not is_plain(array):
            array = _checked_ndarray(array, name)
            _check_float(array, name)
        _check_shape(array, name, (channels,))


def check_out(out, like):
    """Raise unless `out` can receive a result of the shape and dtype of `like`."""
    out = _checked_ndarray(out, "out")
    if out.dtype != like.dtype:
        raise TypeError(f"out: expected {like.dtype}, got {out.dtype}")
    _check_shape(out, "out", like.shape)
    if out.flags.num & CONTIGUOUS_ALIGNED != CONTIGUOUS_ALIGNED:
        raise ValueError("out: expected a C-contiguous, aligned array, got another layout")


def check_written(written, others, may_be=None):
    """Raise unless arrays are writable and share no memory, one with another or with `others`.

    Both are dicts, name -> array or None. Only `may_be` itself may be written to though it is read.
    """
    for name, array in written.items():
        if not array.flags.writeable:
            raise ValueError(f"{name}: expected a writable array, got a read-only one")
    if _all_own([*written.values(), *others.values()]):
        return
    others = {name: array for name, array in others.items() if isinstance(array, np.ndarray)}
    for name, array in written.items():
        for other_name, other in (others | written).items():
            allowed = other_name == name or (array is other and other is may_be)
            if not allowed and np.shares_memory(array, other):
                raise ValueError(
                    f"{name}: expected memory of its own, got an overlap with {other_name}"
                )


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
    if array.dtype.newbyteorder("=") not in (FLOAT32, FLOAT64):
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")


def _checked_ndarray(array, name):
    """Return a NumPy array, without what a subclass makes of it."""
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
    return np.asarray(array)


def _check_shape(array, name, shape):
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
