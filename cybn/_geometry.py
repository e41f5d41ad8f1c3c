"""The only place that looks at shapes, axes, dtypes and overlap."""

import math
from functools import lru_cache
from operator import index
from typing import NamedTuple

import numpy as np

from ._runtime import kernels

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
CONTIGUOUS_ALIGNED = 0x101  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED


class Geometry(NamedTuple):
    """An array as (outer, channels, inner), and what a kernel needs to know of it."""

    axes: tuple[int, int, int]  # outer, channels, inner
    channels: int
    count: int  # values of a channel
    work_shape: tuple[int, int]  # of the kernels' work array


# typed: axis 1.0 is not axis 1
@lru_cache(maxsize=1024, typed=True)
def geometry_of(shape, axis):
    """Return the Geometry of an array of this shape with its channels on this axis."""
    ndim = len(shape)
    if ndim == 0:
        raise ValueError("x: expected at least 1 dimension, got 0")
    try:
        position = index(axis)
    except TypeError:
        raise TypeError(f"axis: expected an int, got {type(axis).__name__}") from None
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


def as_input(value, name, like=None):
    """Return `value` as an aligned, C-contiguous, native array of float32 or float64.

    With `like`, an array, it must have that shape, and gets that dtype.
    """
    if type(value) is np.ndarray and (value.dtype is FLOAT32 or value.dtype is FLOAT64):
        array, dtype = value, value.dtype
    else:
        array = _as_array(value, name)
        if array.dtype.kind in "iub":
            dtype = np.result_type(array, np.float32)
        else:
            dtype = _float_dtype(array, name)
    if like is not None:
        _check_shape(array, name, like.shape)
        dtype = like.dtype
    if array.dtype is dtype and array.flags.num & CONTIGUOUS_ALIGNED == CONTIGUOUS_ALIGNED:
        return array
    return np.require(array, dtype, ("C", "A"))


def _as_array(value, name):
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got {type(value).__name__}")
    try:
        return np.asarray(value)
    except ValueError as error:  # a ragged list
        raise ValueError(f"{name}: expected an array of numbers, got {error}") from None


def _float_dtype(array, name):
    """Return float32 or float64, native, if an array is of one of them in any byte order."""
    dtype = array.dtype
    if dtype is FLOAT32 or dtype is FLOAT64:
        return dtype
    dtype = dtype.newbyteorder("=")
    if dtype not in (FLOAT32, FLOAT64):
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    return dtype


def as_parameter(value, name, channels):
    """Return gamma or beta as an array of float32 or float64 of shape (C,), or None."""
    if value is None:
        return None
    array = value if type(value) is np.ndarray else _as_array(value, name)
    _float_dtype(array, name)
    _check_shape(array, name, (channels,))
    return array


def check_running(running_mean, running_var, channels):
    """Return whether there are running arrays; raise unless they are float arrays of shape (C,)."""
    pair = (running_mean, "running_mean", running_var), (running_var, "running_var", running_mean)
    for array, name, other in pair:
        if array is None:
            if other is not None:
                raise ValueError(f"{name}: expected an array beside the other running one, got None")
            continue
        _check_ndarray(array, name)
        _float_dtype(array, name)
        _check_shape(array, name, (channels,))
    return running_mean is not None


def check_out(out, like):
    """Raise unless `out` can receive a result of the shape and dtype of `like`."""
    _check_ndarray(out, "out")
    if out.dtype != like.dtype:
        raise TypeError(f"out: expected {like.dtype}, got {out.dtype}")
    _check_shape(out, "out", like.shape)
    if out.flags.num & CONTIGUOUS_ALIGNED != CONTIGUOUS_ALIGNED:
        raise ValueError("out: expected a C-contiguous, aligned array, got another layout")


def check_written(array, name, *others, skip=None):
    """Raise unless `array` is writable and shares no memory with `others`, but for `skip` itself.

    `others` are pairs (array or None, its name).
    """
    if not array.flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    for other, other_name in others:
        if not isinstance(other, np.ndarray) or (array is other and other is skip):
            continue
        # Two arrays that own their data share it only if they are the same.
        both_own = array.base is None and other.base is None
        if array is other or (not both_own and np.shares_memory(array, other)):
            raise ValueError(f"{name}: expected memory of its own, got an overlap with {other_name}")


def _check_ndarray(array, name):
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")


def _check_shape(array, name, shape):
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
