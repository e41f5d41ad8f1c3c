"""Checks of arguments that are no arrays; each returns the value as the package keeps it."""

import math
from numbers import Real
from operator import index

import numpy as np

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
FLOATS = FLOAT32, FLOAT64, np.dtype(np.float16)
EXPECTED_FLOAT = "expected float16, bfloat16, float32 or float64"
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


def is_float(dtype):
    """Whether it is one that arrays may have, in any byte order."""
    return dtype.newbyteorder("=") in FLOATS or is_bfloat16(dtype)


def is_bfloat16(dtype):
    """Whether it is that of ml_dtypes, which has no other mark and need not be installed."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def checked_dtype(value):
    """Return the NumPy dtype float16, bfloat16, float32 or float64, in native order."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if value is None or dtype is None or not (dtype.isnative and is_float(dtype)):
        raise TypeError(f"dtype: {EXPECTED_FLOAT}, got {value!r}")
    return dtype


def check_settings(training, momentum, eps):
    """Return momentum and eps as floats; raise unless all three are of the right type and range."""
    if type(training) is not bool and not isinstance(training, np.bool_):
        raise TypeError(f"training: expected a bool, got {type(training).__name__}")
    if type(momentum) is not float:
        momentum = _as_float(momentum, "momentum")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum: expected a value from 0 to 1, got {momentum}")
    return momentum, checked_eps(eps)


def checked_eps(eps, *, zero=False):
    """Return eps as a float; raise unless it is one, and finite and > 0, or perhaps 0."""
    if type(eps) is not float:
        eps = _as_float(eps, "eps")
    if not (0 < eps < math.inf or (zero and eps == 0)):
        expected = ">= 0" if zero else "> 0"
        raise ValueError(f"eps: expected a finite value {expected}, got {eps}")
    return eps


def checked_slope(slope):
    """Return the slope of an activation below 0 as a float."""
    slope = _as_float(slope, "activation")
    if not 0 <= slope < math.inf:
        raise ValueError(f"activation: expected a finite slope >= 0, got {slope}")
    return slope + 0.0  # -0.0 is 0, as it is to the cache of settings


def _as_float(value, name):
    if not isinstance(value, Real):
        raise TypeError(f"{name}: expected a float, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a float, got an int that is too large") from None


def insist(taken):
    """Never hand out a result that no kernel has written."""
    if not taken:
        raise RuntimeError("cybn: a kernel refused arrays that were checked; please report this")
    return taken
