"""Every norm converts its inputs and writes into `out=` as `cybn.forward` does."""

from dataclasses import replace

import numpy as np
import pytest
from cases import DTYPES
from checks import refused
from layouts import all_layouts
from norms import Results, make_norm_case, run_cybn
from numpy.testing import assert_array_equal

import cybn

ONE_OF_EACH = [
    *("layer, two axes", "RMS", "instance NHWC", "group NCHW", "weight OIHW", "conditional NCHW"),
    *("adaptive instance NCHW", "two axes", "masked NCHW", "masked, two axes"),
]
one_of_each = pytest.mark.parametrize("name", ONE_OF_EACH)


def arrays_of(case):
    arrays = {name: getattr(case, name) for name in ("x", "dy", "gamma", "beta", "where")}
    return {name: array for name, array in arrays.items() if array is not None}


def assert_same(actual, expected):
    for field, one, other in zip(Results._fields, actual, expected, strict=True):
        assert_array_equal(one, other, err_msg=field)
        assert other is None or one.dtype == other.dtype, field


@pytest.mark.parametrize("dtype", DTYPES)
@one_of_each
@all_layouts
def test_layouts(rng, layout, name, dtype):
    """Of x, dy, gamma, beta and the mask alike; the results are plain arrays."""
    case = make_norm_case(rng, name, dtype)
    given = {key: layout(array) for key, array in arrays_of(case).items()}
    actual = run_cybn(replace(case, **given))
    assert_same(actual, run_cybn(case))
    for array in (actual.y, actual.dx):
        assert type(array) is np.ndarray
        assert array.flags.c_contiguous
        assert array.dtype.isnative


@pytest.mark.parametrize("dtype", DTYPES)
@one_of_each
def test_gradients_have_the_parameters_dtypes(rng, name, dtype):
    case = make_norm_case(rng, name, np.float64)
    parameters = {
        key: array.astype(dtype)
        for key, array in arrays_of(case).items()
        if key in case.norm.parameters
    }
    results = run_cybn(replace(case, **parameters))
    assert results.y.dtype == results.dx.dtype == np.float64
    for key, array in parameters.items():
        gradient = getattr(results, f"d{key}")
        assert gradient.dtype == dtype
        assert gradient.shape == array.shape


@one_of_each
def test_each_parameter_has_its_gradient(rng, name):
    case = make_norm_case(rng, name, np.float64)
    expected = run_cybn(case)
    for absent in case.norm.parameters:
        results = run_cybn(replace(case, **{absent: None}))
        for key in case.norm.parameters:
            gradient = getattr(results, f"d{key}")
            if key == absent:
                assert gradient is None
            else:
                assert gradient.shape == getattr(expected, f"d{key}").shape
    assert (expected.dbeta is None) == ("beta" not in case.norm.parameters)


@pytest.mark.parametrize("type_", [np.int8, np.uint16, np.int32, np.int64, bool])
@one_of_each
def test_integers_become_the_float_numpy_would_choose(rng, name, type_):
    case = make_norm_case(rng, name)
    x, dy = (rng.integers(0, 2, case.x.shape).astype(type_) for _ in range(2))
    dtype = np.result_type(type_, np.float32)
    actual = run_cybn(replace(case, x=x, dy=dy))
    assert_same(actual, run_cybn(replace(case, x=x.astype(dtype), dy=dy.astype(dtype))))


@pytest.mark.parametrize("convert", [np.ndarray.tolist, memoryview])
@one_of_each
def test_sequences_are_read_as_numpy_reads_them(rng, name, convert):
    case = make_norm_case(rng, name, np.float64)
    given = replace(case, **{key: convert(array) for key, array in arrays_of(case).items()})
    y, cache = given.norm.function(given.x, **given.arguments)
    assert_same((y, *cybn.backward(given.dy, cache)), run_cybn(case))


@one_of_each
def test_arguments_are_not_changed(rng, name):
    case = make_norm_case(rng, name)
    before = {key: array.copy() for key, array in arrays_of(case).items()}
    first, second = run_cybn(case), run_cybn(case)
    assert_same(first, second)
    for key, array in arrays_of(case).items():
        assert_array_equal(array, before[key])


@one_of_each
def test_cache(rng, name):
    """It refers to x, and can be used again."""
    case = make_norm_case(rng, name)
    _, cache = case.norm.function(case.x, **case.arguments)
    assert isinstance(cache, cybn.Cache)
    assert np.shares_memory(cache.x, case.x)
    first, second = cybn.backward(case.dy, cache), cybn.backward(case.dy, cache)
    assert isinstance(first, cybn.Gradients)
    for one, other in zip(first, second, strict=True):
        assert_array_equal(one, other)


@one_of_each
def test_out(rng, name):
    case = make_norm_case(rng, name)
    expected = run_cybn(case)
    out_y, out_dx = np.full_like(case.x, np.nan), np.full_like(case.x, np.nan)
    y, cache = case.norm.function(case.x, **case.arguments, out=out_y)
    gradients = cybn.backward(case.dy, cache, out=out_dx)
    assert y is out_y
    assert gradients.dx is out_dx
    assert_same((y, *gradients), expected)


@one_of_each
def test_out_of_backward_may_be_dy(rng, name):
    case = make_norm_case(rng, name)
    _, cache = case.norm.function(case.x, **case.arguments)
    dy = case.dy.copy()
    gradients = cybn.backward(dy, cache, out=dy)
    assert gradients.dx is dy
    for one, other in zip(gradients, run_cybn(case)[1:], strict=True):
        assert_array_equal(one, other)


@one_of_each
def test_out_that_overlaps_x(rng, name):
    case = make_norm_case(rng, name)
    size = case.x.size
    buffer = np.zeros(size + 3, case.x.dtype)
    x, out = buffer[:size].reshape(case.x.shape), buffer[3:].reshape(case.x.shape)
    with refused(ValueError, r"\bout\b", buffer):
        case.norm.function(x, **case.arguments, out=out)


@one_of_each
def test_out_that_does_not_fit(rng, name):
    case = make_norm_case(rng, name)
    for out, error in (
        (np.empty(case.x.shape, np.float64), TypeError),
        (np.empty((*case.x.shape, 1), np.float32), ValueError),
        (case.x.tolist(), TypeError),
    ):
        with refused(error, r"\bout\b", case.x):
            case.norm.function(case.x, **case.arguments, out=out)


@pytest.mark.parametrize("name", [name for name in ONE_OF_EACH if "weight" not in name])
def test_empty_batch(rng, name):
    """Empty results, and gradients of 0."""
    case = make_norm_case(rng, name)
    batched = ["x", "dy", *(["gamma", "beta"] if case.norm.per_sample else [])]
    batched += ["where"] if case.where is not None else []
    case = replace(case, **{key: getattr(case, key)[:0] for key in batched})

    results = run_cybn(case)

    assert results.y.shape == results.dx.shape == case.x.shape
    for key in case.norm.parameters:
        assert_array_equal(getattr(results, f"d{key}"), np.zeros(getattr(case, key).shape))
