"""Checks of arguments that are no arrays; each returns the value as the package keeps it."""

from operator import index

import numpy as np

from ._geometry import FLOAT32, FLOAT64


def checked_int(value, name, least=-(2**63)):
    """Return an int from `least` on."""
    try:
        value = index(None if isinstance(value, bool) else value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}") from None
    if not least <= value < 2**60:
        raise ValueError(f"{name}: expected an int >= {least}, got {value}")
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
