"""Every norm is right to the last bit, at any size, offset and layout (see `checks` for bounds)."""

import numpy as np
import pytest
from cases import DTYPES
from hypothesis import given, settings
from norms import (
    SHAPES,
    assert_results_nearest,
    build_norm_case,
    make_norm_case,
    norm_cases,
    run_cybn,
    run_reference,
)
from numpy.testing import assert_array_equal

all_dtypes = pytest.mark.parametrize("dtype", DTYPES)
all_shapes = pytest.mark.parametrize("name", SHAPES)


@settings(max_examples=600)
@given(case=norm_cases())
def test_drawn_cases(case):
    assert_results_nearest(run_cybn(case), run_reference(case), case)


@all_dtypes
@all_shapes
def test_sizes_around_the_kernels_blocks(rng, name, dtype):
    case = make_norm_case(rng, name, dtype, mean=3.0)
    assert_results_nearest(run_cybn(case), run_reference(case), case)


# Every length up to two rows of 32 lanes, then powers of two and their neighbours: strips, tiles,
# blocks, and the length from which on an inner axis is summed along.
LENGTHS = [*range(2, 68), *(2**k + d for k in range(7, 13) for d in (-1, 0, 1))]


@all_dtypes
@pytest.mark.parametrize(
    ("norm", "shape", "options", "mask_shape"),
    [
        ("layer", (5, "n"), {}, None),
        ("layer", ("n", 5), {}, None),
        ("RMS", (5, "n"), {}, None),
        ("instance", (2, 3, "n"), {}, None),
        ("instance", (2, "n", 3), {}, None),
        ("instance", (2, "n", 3), {"axis": -1}, None),
        ("group", (2, 4, "n"), {"num_groups": 2}, None),
        ("group", (2, "n", 4), {"num_groups": 2, "axis": -1}, None),
        ("weight", (3, "n"), {}, None),
        ("conditional batch", (3, 2, "n"), {}, None),
        ("conditional batch", (3, "n", 2), {}, None),
        ("conditional batch", (3, "n", 2), {"axis": -1}, None),
        ("batch", (3, 2, "n"), {"axis": (1, 2)}, None),
        ("batch", ("n", 3), {}, ("n", 1)),
        ("batch", (5, "n"), {}, (5, 1)),
        ("batch", (2, 3, "n"), {}, (2, 1, "n")),
        ("batch", (2, "n", 3), {}, (2, 1, 3)),
    ],
)
def test_every_length(rng, norm, shape, options, mask_shape, dtype):
    for n in LENGTHS:
        lengths, mask_lengths = (
            None if each is None else tuple(n if length == "n" else length for length in each)
            for each in (shape, mask_shape)
        )
        case = build_norm_case(rng, norm, lengths, options, mask_lengths, dtype=dtype)
        assert_results_nearest(run_cybn(case), run_reference(case), case)


# A statistic of several dozens of values, of every norm, in both layouts.
USUAL = [
    *("layer, sequences", "layer, three axes", "RMS, wide", "instance NCHW", "instance NHWC"),
    *("group NCHW", "group NHWC", "weight OI", "weight HWIO", "conditional NCHW"),
    *("conditional NHWC", "adaptive instance NCHW", "two axes", "masked NCHW", "masked NHWC"),
]
usual_shapes = pytest.mark.parametrize("name", USUAL)
centered_shapes = pytest.mark.parametrize("name", [name for name in USUAL if "RMS" not in name])


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
@all_dtypes
@usual_shapes
def test_any_offset(rng, name, dtype, mean):
    case = make_norm_case(rng, name, dtype, mean=mean)
    assert_results_nearest(run_cybn(case), run_reference(case), case)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@all_dtypes
@usual_shapes
def test_huge_and_tiny_values(rng, name, dtype, scale):
    """Their squares are beyond float32."""
    case = make_norm_case(rng, name, dtype, std=scale, eps=1e-5 * scale**2)
    assert_results_nearest(run_cybn(case), run_reference(case), case)


@pytest.mark.parametrize("value", [0.0, 0.1, 100.1, 1e6 + 1 / 3, -1e-30])
@all_dtypes
@centered_shapes
def test_constant_values_give_exactly_beta(rng, name, dtype, value):
    case = make_norm_case(rng, name, dtype)
    view = case.view
    lengths = [1 if i in view.over else length for i, length in enumerate(view.shape)]
    constants = value * (1 + np.arange(np.prod(lengths)).reshape(lengths) / 7)
    selected = ~np.isnan(case.x)
    case.x[...] = np.broadcast_to(constants, view.shape).reshape(case.x.shape)

    y = run_cybn(case).y

    beta = np.zeros(1) if case.beta is None else case.beta.reshape(view.parameters)
    expected = np.broadcast_to(beta, view.shape).reshape(y.shape)
    assert_array_equal(y, np.where(selected, expected, 0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@all_dtypes
@centered_shapes
def test_nan_and_infinity_stay_in_their_statistic(rng, name, dtype, value):
    case = make_norm_case(rng, name, dtype)
    selected = ~np.isnan(case.x)
    clean = run_cybn(case)
    place = np.flatnonzero(selected)[selected.sum() // 2]
    case.x.flat[place] = value
    hit = np.zeros(case.x.shape, bool)
    hit.flat[place] = True
    hit = hit.reshape(case.view.shape).any(axis=case.view.over, keepdims=True)
    hit = np.broadcast_to(hit, case.view.shape).reshape(case.x.shape) & selected

    dirty = run_cybn(case)

    for before, after in ((clean.y, dirty.y), (clean.dx, dirty.dx)):
        assert_array_equal(after, np.where(hit, np.nan, before))
    if clean.dbeta is not None:
        assert_array_equal(dirty.dbeta, clean.dbeta)


def test_nan_stays_in_its_row_of_rms_norm(rng):
    case = make_norm_case(rng, "RMS")
    clean = run_cybn(case)
    case.x[5, 7] = np.nan
    dirty = run_cybn(case)
    for before, after in ((clean.y, dirty.y), (clean.dx, dirty.dx)):
        before[5] = np.nan
        assert_array_equal(after, before)
