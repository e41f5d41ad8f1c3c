"""The promise on accuracy: the nearest float32, at any offset, layout and size.

The bound is half an ulp of the longdouble result plus 1e-9 |gamma| (see `checks`).
"""

from dataclasses import replace

import numpy as np
import pytest
import reference
from cases import DTYPES, make_case, run_cybn, run_reference
from checks import assert_results_nearest
from numpy.testing import assert_array_equal

import cybn

LAYOUTS = {
    "NCHW": ((8, 16, 28, 28), 1),
    "NHWC": ((8, 28, 28, 16), -1),
    "N, C": ((512, 64), 1),
    "one channel": ((4, 1, 64, 64), 1),
    "short rows": ((16, 32, 7, 7), 1),
    "large": ((100_000, 5), 1),
}
all_layouts = pytest.mark.parametrize(("shape", "axis"), LAYOUTS.values(), ids=LAYOUTS)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("dtype", DTYPES)
@all_layouts
def test_any_offset(rng, shape, axis, dtype, mean, training):
    case = make_case(rng, shape, axis, dtype, training=training, mean=mean)
    assert_results_nearest(run_cybn(case), run_reference(case), case)


@pytest.mark.parametrize("dtype", DTYPES)
@all_layouts
def test_first_value_is_an_outlier(rng, shape, axis, dtype):
    """The worst case of one-pass statistics that are shifted by the first value.

    It costs the variance a factor of n in precision, on top of some dozens of roundings, which
    float32 results must not feel.
    """
    case = make_case(rng, shape, axis, dtype)
    rows = np.moveaxis(case.x, axis, -1)
    rows[(0,) * (rows.ndim - 1)] = 1e4

    _, cache = cybn.forward(case.x, axis=axis)

    n = case.x.size // shape[axis]
    exact = reference.forward(case.x, axis=axis, dtype=np.longdouble)
    np.testing.assert_allclose(cache.var, exact.var, rtol=64 * n * np.finfo(np.float64).eps)
    if dtype == np.float32:
        assert_results_nearest(run_cybn(case), run_reference(case), case)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("dtype", DTYPES)
@all_layouts
def test_huge_and_tiny_values(rng, shape, axis, dtype, scale):
    """Their squares, and so the running variance, are beyond float32."""
    case = make_case(rng, shape, axis, dtype, eps=1e-5 * scale**2)
    case = replace(case, x=case.x * dtype(scale), running_mean=None, running_var=None)
    assert_results_nearest(run_cybn(case), run_reference(case), case)


def test_statistics_and_gradients_beyond_float32_are_infinite(rng):
    """As NumPy's and PyTorch's are, and without a warning (pytest makes it an error)."""
    x = (rng.normal(size=(64, 3)) * 1e30).astype(np.float32)
    running_mean, running_var = np.zeros(3, np.float32), np.ones(3, np.float32)
    gamma, beta = np.ones((2, 3), np.float32)
    _, cache = cybn.forward(x, gamma, beta, running_mean=running_mean, running_var=running_var)
    assert np.isfinite(running_mean).all()
    assert_array_equal(running_var, np.inf)
    huge = np.full(x.shape, np.finfo(np.float32).max)
    assert_array_equal(cybn.backward(huge, cache).dbeta, np.inf)


def test_subnormal_values_are_not_flushed(rng):
    smallest = np.finfo(np.float32).smallest_subnormal
    x = (rng.integers(-1000, 1000, (64, 3)) * smallest).astype(np.float32)
    y, _ = cybn.forward(x)
    expected = (x - x.mean(axis=0, dtype=np.float64)) / np.sqrt(1e-5)
    assert np.abs(expected).max() < np.finfo(np.float32).smallest_normal
    assert np.abs(y - expected).max() <= 0.5001 * smallest


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.1, 100.1, 1e6 + 1 / 3, 1e30, -1e-30])
@pytest.mark.parametrize("dtype", DTYPES)
@all_layouts
def test_constant_channels_give_exactly_beta(rng, shape, axis, dtype, value):
    channels = shape[axis]
    constants = (value * (1 + np.arange(channels) / 7)).astype(dtype)
    gamma, beta = rng.normal(size=(2, channels)).astype(dtype)
    x = np.empty(shape, dtype)
    np.moveaxis(x, axis, -1)[...] = constants

    y, cache = cybn.forward(x, gamma, beta, axis=axis)

    rows = np.moveaxis(y, axis, -1)
    assert_array_equal(rows, np.broadcast_to(beta, rows.shape))
    assert_array_equal(cache.mean, constants)
    assert_array_equal(cache.var, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@all_layouts
def test_nan_and_infinity_stay_in_their_channel(rng, shape, axis, dtype, value):
    case = make_case(rng, shape, axis, dtype)
    clean = run_cybn(case)
    hit = shape[axis] // 2
    channel = np.moveaxis(case.x, axis, 0)[hit]
    channel[tuple(length // 2 for length in channel.shape)] = value

    dirty = run_cybn(case)

    for name in ("y", "dx"):
        before = np.moveaxis(getattr(clean, name), axis, 0)
        after = np.moveaxis(getattr(dirty, name), axis, 0)
        assert np.isnan(after[hit]).all(), name
        assert_array_equal(np.delete(after, hit, axis=0), np.delete(before, hit, axis=0))
    for name in ("dgamma", "running_mean", "running_var"):
        before, after = getattr(clean, name), getattr(dirty, name)
        assert not np.isfinite(after[hit]), name
        assert_array_equal(np.delete(after, hit), np.delete(before, hit))
    assert_array_equal(dirty.dbeta, clean.dbeta)


@pytest.mark.parametrize("dtype", DTYPES)
@all_layouts
def test_nan_and_infinity_in_inference_stay_where_they_are(rng, shape, axis, dtype):
    case = make_case(rng, shape, axis, dtype, training=False)
    clean = run_cybn(case).y
    case.x.flat[[5, 6, 7]] = [np.nan, np.inf, -np.inf]
    sign = np.sign(np.broadcast_to(case.per_channel(case.gamma), shape).flat[[6, 7]])

    dirty = run_cybn(case).y

    assert np.isnan(dirty.flat[5])
    assert_array_equal(dirty.flat[[6, 7]], sign * [np.inf, -np.inf])
    dirty.flat[[5, 6, 7]] = clean.flat[[5, 6, 7]]
    assert_array_equal(dirty, clean)
