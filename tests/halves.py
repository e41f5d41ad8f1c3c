"""Numbers of 16 bit, and the exact value rounded to them once.

Nothing here rounds by a cast: NumPy's to float16 is right, but that of ml_dtypes to bfloat16 goes
by way of float32, and float64 values next to a tie come out wrong.
"""

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HALVES = {"float16": np.dtype(np.float16), "bfloat16": BFLOAT16}

# What float64 loses before the one rounding, as part of the scale (see `checks`).
SLACK = 1e-9


def nearest(exact, dtype):
    """The numbers of a 16-bit dtype nearest to exact ones (float64 or longdouble); ties to even."""
    info = ml_dtypes.finfo(dtype)
    _, exponent = np.frexp(exact)
    ulp = np.maximum(exponent - 1, info.minexp) - info.nmant
    with np.errstate(all="ignore"):
        rounded = np.ldexp(np.rint(np.ldexp(exact, -ulp)), ulp)  # only the second one rounds
        too_large = np.abs(rounded) > np.longdouble(float(info.max))
        rounded = np.where(too_large, np.copysign(np.inf, exact), rounded)
        rounded = np.where(np.isfinite(exact), np.copysign(rounded, exact), exact)
        return rounded.astype(np.float64).astype(dtype)  # all of them exact


def values_of(array):
    """The values as float64, exactly."""
    with np.errstate(all="ignore"):  # ml_dtypes warns of NaN
        return array.astype(np.float64)


def all_numbers(dtype):
    """All 65,536 of them."""
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


def assert_same_numbers(actual, expected):
    """Assert the same bits, but for those of NaN."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    nan = np.isnan(values_of(expected))
    differ = actual.view(np.uint16) != expected.view(np.uint16)
    differ = np.where(nan, ~np.isnan(values_of(actual)), differ)
    assert not differ.any(), (
        f"{np.count_nonzero(differ)} of {differ.size} numbers of {actual.dtype} are wrong, "
        f"as {actual[differ][0]}, expected {expected[differ][0]}"
    )


def assert_nearest_half(actual, exact, scale):
    """Assert that actual is the number nearest to exact, or to what is within SLACK of the scale.

    There rounding is monotonic, so it lies between the numbers nearest to both ends.
    """
    slack = np.asarray(SLACK * scale, np.longdouble)
    low, high = nearest(exact - slack, actual.dtype), nearest(exact + slack, actual.dtype)
    within = (values_of(low) <= values_of(actual)) & (values_of(actual) <= values_of(high))
    assert within.all(), f"{np.count_nonzero(~within)} of {within.size} {actual.dtype} are wrong"
