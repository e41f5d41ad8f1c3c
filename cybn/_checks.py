"""Checks of arguments that are no arrays; each returns the value as the package keeps it."""

from operator import index

import numpy as np

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
LARGEST = 2**60  # of an int: sums of several fit an int64


def checked_int(value, name, least=-LARGEST, most=LARGEST):
    """Return an int from `least` to `most`."""
    try:
        value = index(None if isinstance(value, bool) else value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}") from None
    if not least <= value <= most:
        expected = f">= {least}" if most == LARGEST else f"from {least} to {most}"
        raise ValueError(f"{name}: expected an int {expected}, got {value}")
    return value


def checked_bool(value, name):
    """Return a bool, which NumPy's may be, too."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    return bool(value)


def checked_dtype(value):
    """Return the NumPy dtype float32 or float64."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if value is None or (dtype is not FLOAT32 and dtype is not FLOAT64):
        raise TypeError(f"dtype: expected float32 or float64, got {value!r}")
    return dtype
