"""Assertions shared by the tests, and the tolerances with their reasons."""

from contextlib import contextmanager

import numpy as np
import pytest

# float32 results: half a unit in the last place for the one rounding on storing, and this part of
# the scale for what float64 loses before. A mean of 1e6 with unit variance is known to 6e-11 of a
# standard deviation (half an ulp of the float64 mean), which leaves a factor of 16.
SLACK_FLOAT32 = 1e-9

# float64 results have no wider precision behind them: a few dozen roundings of 1.1e-16 each, in
# units of the scale. Means away from 0 cost |mean| / std times as much.
SLACK_FLOAT64 = 1e-14


def assert_nearest(actual, exact, scale, offset=0.0):
    """Assert that actual is exact (longdouble) rounded to its dtype, up to the slack above.

    scale is what a result of ordinary size amounts to, offset is |mean| / std: both broadcast.
    """
    if actual.dtype == np.float32:
        slack = SLACK_FLOAT32 * scale
    else:
        slack = SLACK_FLOAT64 * (scale * (1 + np.abs(offset)) + np.abs(exact))
    error = np.abs(actual.astype(np.longdouble) - exact)
    allowed = _ulp(exact, actual.dtype) / 2 + slack
    within = error <= allowed
    assert within.all(), (
        f"{np.count_nonzero(~within)} of {within.size} values of {actual.dtype} are wrong, "
        f"the worst by {np.max(error / allowed):.3g} times what is allowed"
    )


def assert_results_nearest(actual, exact, case):
    """`assert_nearest` for all of a `cases.Results`, where exact comes from the reference."""
    terms = np.moveaxis(np.abs(case.dy), case.axis, 0).reshape(len(case.std), -1).sum(axis=1)
    offset = case.offset.ravel()
    assert_nearest(actual.y, exact.y, case.y_scale, case.offset)
    assert_nearest(actual.dx, exact.dx, case.dx_scale, case.offset)
    if exact.dgamma is not None:
        assert_nearest(actual.dgamma, exact.dgamma, terms, offset)
    if exact.dbeta is not None:
        assert_nearest(actual.dbeta, exact.dbeta, terms)
    if exact.running_mean is not None:
        assert_nearest(actual.running_mean, exact.running_mean, np.abs(exact.running_mean).max())
        assert_nearest(actual.running_var, exact.running_var, exact.running_var.max(), offset)


def assert_close(actual, expected, tolerance, scale=None):
    """Assert that the largest error is within tolerance times the scale of the expected values."""
    assert actual.shape == expected.shape
    if scale is None:
        scale = np.max(np.abs(expected))
    error = np.max(np.abs(actual - expected))
    assert error <= tolerance * scale, f"{error / scale:.3g} of the scale, allowed {tolerance}"


@contextmanager
def refused(error, match, *arrays):
    """Assert that the body raises this error with this message, and changes none of the arrays."""
    before = [array.tobytes() for array in arrays]
    with pytest.raises(error, match=match):
        yield
    assert [array.tobytes() for array in arrays] == before


def _ulp(exact, dtype):
    """The distance between neighbouring numbers of dtype around exact."""
    info = np.finfo(dtype)
    _, exponent = np.frexp(exact)
    exponent = np.maximum(exponent - 1, info.minexp) - info.nmant
    return np.ldexp(np.longdouble(1), exponent)


def numerical_gradient(loss, array, step):
    """d loss() / d array by central differences, where loss reads array anew at every call."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = loss()
        array[index] = value - step
        below = loss()
        array[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient
