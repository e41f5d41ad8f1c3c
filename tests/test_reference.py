"""Everything forward and backward compute, against the textbook in longdouble."""

from dataclasses import replace

import numpy as np
import pytest
from cases import DTYPES, SHAPES, cases, make_case, run_cybn, run_reference
from checks import assert_results_nearest
from hypothesis import given, settings


@settings(max_examples=300)
@given(case=cases())
def test_drawn_cases(case):
    assert_results_nearest(run_cybn(case), run_reference(case), case)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_sizes_around_the_kernels_blocks(rng, name, dtype, training):
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, dtype, training=training, mean=3.0)
    assert_results_nearest(run_cybn(case), run_reference(case), case)


# Every length up to two tiles of 64, then the powers of two and their neighbours.
LENGTHS = [*range(2, 130), *(2**k + d for k in range(8, 17) for d in (-1, 0, 1))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["along rows", "across rows", "rows of a sample"])
def test_every_length(rng, layout, dtype):
    for n in LENGTHS:
        shape, axis = {
            "along rows": ((3, n), 0),
            "across rows": ((n, 3), 1),
            "rows of a sample": ((2, 2, n), 1),
        }[layout]
        case = make_case(rng, shape, axis, dtype)
        assert_results_nearest(run_cybn(case), run_reference(case), case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", [1, 2, 7])
def test_every_channel_count(rng, inner, dtype):
    for channels in LENGTHS[: -3 * 5]:
        case = make_case(rng, (5, channels, inner), 1, dtype)
        assert_results_nearest(run_cybn(case), run_reference(case), case)


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_have_the_promised_dtypes_and_order(rng, dtype):
    other = np.float64 if dtype == np.float32 else np.float32
    case = make_case(rng, (4, 3, 5), 1, dtype)
    parameters = {
        name: getattr(case, name).astype(other)
        for name in ("gamma", "beta", "running_mean", "running_var")
    }
    case = replace(case, **parameters)

    results = run_cybn(case)

    assert results.y.dtype == results.dx.dtype == dtype
    assert results.dgamma.dtype == results.dbeta.dtype == other
    assert results.y.flags.c_contiguous
    assert results.dx.flags.c_contiguous
    assert results.y.shape == results.dx.shape == case.x.shape
