"""float16 and bfloat16: read exactly, computed in float64, rounded once."""

import copy
import pickle
from dataclasses import replace
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from cases import DTYPES, MEMORY, cases, make_case, run_cybn, run_reference
from halves import (
    BFLOAT16,
    HALVES,
    all_numbers,
    assert_nearest_half,
    assert_same_numbers,
    nearest,
    values_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import LAYOUTS
from norms import SHAPES, build_norm_case, norm_cases
from norms import run_cybn as run_norm
from norms import run_reference as run_norm_reference
from numpy.testing import assert_array_equal
from ways import force_schedule

import cybn

all_halves = pytest.mark.parametrize("dtype", HALVES.values(), ids=HALVES)


def telling_values(dtype):
    """float64 values around every tie, and where numbers end."""
    numbers = values_of(all_numbers(dtype))
    numbers = np.unique(numbers[np.isfinite(numbers)])
    ties = (numbers[1:] + numbers[:-1]) / 2
    largest = numbers[-1]
    beyond = largest + (largest - numbers[-2]) / 2  # 65520 as float16: the first that is infinite
    ends = [largest, beyond, np.nextafter(beyond, 0), 2 * largest, 1e39, 2.0**200, 1e308]
    ends += [np.finfo(np.float64).max, np.inf, 5e-324, 1e-300, 0.0]
    around = [numbers, ties, np.nextafter(ties, -np.inf), np.nextafter(ties, np.inf)]
    # And so far from a tie that it would be one after a step on the way.
    around += [ties + sign * ties * 2.0**-bits for bits in (14, 20, 23, 24, 30) for sign in (-1, 1)]
    all_ones = np.array([(1 << 63) - 1]).view(np.float64)  # a NaN whose bits are on the brink
    return np.concatenate([*around, ends, np.negative(ends), [np.nan], all_ones.repeat(64)])


def test_the_reference_against_fractions():
    """Its nearest number is one that no other is nearer to, and of two as near the even one."""
    rng = np.random.default_rng(0)
    for dtype in HALVES.values():
        numbers = np.unique(values_of(all_numbers(dtype))[: 1 << 15])
        numbers = numbers[np.isfinite(numbers)]
        values = telling_values(dtype)
        values = np.abs(values[np.abs(values) < numbers[-1]])
        for value in rng.choice(values, 3000):
            i = np.searchsorted(numbers, value, "right")
            low, high = numbers[max(i - 1, 0)], numbers[min(i, len(numbers) - 1)]
            below, above = Fraction(value) - Fraction(low), Fraction(high) - Fraction(value)
            is_even = not int(np.array([low]).astype(dtype).view(np.uint16)[0]) & 1
            expected = low if below < above or (below == above and is_even) else high
            assert float(nearest(np.array([value]), dtype)[0]) == expected


@pytest.mark.parametrize(("from_memory", "stream"), MEMORY)
@all_halves
def test_float64_is_rounded_once(monkeypatch, dtype, from_memory, stream):
    """y is beta: for rows of lanes with a value each, for one value, strips and single ones."""
    force_schedule(monkeypatch, lambda _: (from_memory, stream, 1 << 20, 1))
    values = telling_values(dtype)
    expected = nearest(values + 0.0, dtype)  # 0 + -0.0 is 0
    for shape, count in (((3, len(values)), None), ((2, 9001, 43), 9001), ((1, 5003, 571), 5003)):
        some = slice(None) if count is None else slice(None, None, len(values) // count + 1)
        beta = values[some]
        zeros = np.zeros((shape[0], len(beta), *shape[2:]), dtype)
        running = {"running_mean": np.zeros(len(beta)), "running_var": np.ones(len(beta))}
        y, _ = cybn.forward(zeros, None, beta, training=False, **running)
        wanted = expected[some].reshape(-1, *[1] * (len(shape) - 2))
        assert_same_numbers(y, np.broadcast_to(wanted, y.shape).copy())


@all_halves
def test_all_numbers_through_scale_and_shift(dtype):
    """The scale has 10 bits: x * gamma is exact, and in float16 the sum, too."""
    x = all_numbers(dtype)
    eps = 2.0**-10
    for gamma in (1.0, -1.0, 1.5, 0.998046875, 3.0, 2.0**-9, 341 / 512, 0.0):
        for beta in (0.0, 1.0, -0.0634765625):
            y, _ = cybn.forward(
                x[:, None], np.array([gamma]), np.array([beta]), running_mean=np.zeros(1),
                running_var=np.array([1 - eps]), eps=eps, training=False,
            )  # fmt: skip
            with np.errstate(all="ignore"):
                exact = values_of(x) * gamma + beta
            assert_same_numbers(y[:, 0], nearest(exact, dtype))


@all_halves
def test_numbers_that_are_not_changed(dtype):
    """Through a pass that does nothing each comes back: all are read exactly, at every place."""
    numbers = all_numbers(dtype)
    mean, var = np.zeros(1), np.ones(1) - 2.0**-10
    inference = {"running_mean": mean, "running_var": var, "eps": 2.0**-10, "training": False}
    for first in range(9):
        x = numbers[first:][:, None]
        y, cache = cybn.forward(x, **inference)
        with np.errstate(all="ignore"):
            expected = nearest(values_of(x) + 0.0, dtype)  # -0.0 + 0 is 0
        assert_same_numbers(y, expected)
        assert_same_numbers(cybn.backward(x, cache).dx, y)


@all_halves
def test_parameters_and_gradients_are_rounded_once(dtype):
    """Running statistics, state dicts, gradients of parameters and dy of another type."""
    values = telling_values(dtype)
    expected = nearest(values, dtype)
    mean, var = np.zeros(len(values), dtype), np.ones(len(values), dtype)
    x = np.broadcast_to(values, (2, len(values))).copy()
    with np.errstate(all="ignore"):
        cybn.forward(x, running_mean=mean, running_var=var, momentum=1.0)
    finite = np.abs(values) < 1e150  # the mean of others is NaN
    assert_same_numbers(mean[finite], nearest(values + 0.0, dtype)[finite])

    layer = cybn.BatchNorm(len(values), dtype=dtype)
    layer.load_state_dict(layer.state_dict() | {"weight": values, "running_mean": values})
    assert_same_numbers(layer.gamma, expected)
    assert_same_numbers(layer.running_mean, expected)

    zeros = np.zeros((1, len(values)), dtype)
    running = {"running_mean": zeros[0], "running_var": zeros[0] + np.array(1, dtype)}
    _, cache = cybn.forward(zeros, zeros[0], zeros[0], training=False, **running)
    dbeta = cybn.backward(values[None], cache).dbeta
    assert_same_numbers(dbeta, nearest(values_of(expected) + 0.0, dtype))


def test_bfloat16_has_what_a_cast_by_float32_would_not():
    value = 1 + 2.0**-8 + 2.0**-40
    assert float(np.array([value]).astype(BFLOAT16)[0]) != float(nearest(value, BFLOAT16))
    layer = cybn.LayerNorm(1, dtype=BFLOAT16)
    layer.load_state_dict({"weight": [value], "bias": [0.0]})
    assert float(layer.gamma[0]) == 1.0078125


def drawn_half(data, array):
    """An array as a 16-bit type, or as it is."""
    if array is None or not data.draw(st.booleans()):
        return array
    return halved(array, data.draw(st.sampled_from([*HALVES.values()])))


def halved(array, dtype):
    """An array of NaN and numbers in a 16-bit type and in its own layout."""
    half = np.empty_like(array, dtype)
    half[...] = nearest(array, dtype)
    return half


def assert_results_nearest(actual, exact, case, terms):
    assert actual.y.dtype == actual.dx.dtype == case.x.dtype
    assert_nearest_half(actual.y, exact.y, case.y_scale + np.abs(exact.y))
    assert_nearest_half(actual.dx, exact.dx, case.dx_scale)
    for name in ("dgamma", "dbeta"):
        one, other, of = (getattr(each, name) for each in (actual, exact, terms))
        assert (one is None) == (other is None)
        if other is not None and one.dtype in HALVES.values():
            assert_nearest_half(one, other, of)


class Terms:
    def __init__(self, case):
        size = np.nan_to_num(np.abs(values_of(case.dy))).sum()
        self.dgamma = self.dbeta = size


def widened(case, names):
    """The case in float64, for the reference."""
    arrays = {name: getattr(case, name) for name in names}
    return replace(case, **{n: None if a is None else values_of(a) for n, a in arrays.items()})


@settings(max_examples=200)
@given(case=cases(dtypes=[np.float64]), data=st.data())
def test_drawn_batch_norms(case, data):
    """Every type of x with every type of parameters."""
    dtype = data.draw(st.sampled_from([*HALVES.values()]))
    names = "gamma", "beta", "running_mean", "running_var"
    case = replace(case, x=halved(case.x, dtype), dy=halved(case.dy, dtype))
    case = replace(case, **{name: drawn_half(data, getattr(case, name)) for name in names})
    wide = widened(case, ["x", "dy", *names])
    actual, exact = run_cybn(case), run_reference(wide)
    assert_results_nearest(actual, exact, replace(wide, x=case.x), Terms(case))
    for name in ("running_mean", "running_var"):
        one, other = getattr(actual, name), getattr(exact, name)
        if other is not None and one.dtype in HALVES.values():
            assert_nearest_half(one, other, np.abs(other).max())


NORM_ARRAYS = ["x", "dy", "gamma", "beta"]


@settings(max_examples=300)
@given(case=norm_cases(), data=st.data())
def test_drawn_norms(case, data):
    dtype = data.draw(st.sampled_from([*HALVES.values()]))
    case = replace(
        case,
        x=halved(case.x, dtype),
        dy=halved(case.dy, dtype),
        gamma=drawn_half(data, case.gamma),
        beta=drawn_half(data, case.beta),
    )
    assert_norm_nearest(case)


def assert_norm_nearest(case):
    wide = widened(case, NORM_ARRAYS)
    exact = run_norm_reference(wide)
    assert_results_nearest(run_norm(case), exact, Halved(case, wide), Terms(case))


class Halved:
    """The scales of a case in float64, the arrays of that in 16 bit."""

    def __init__(self, case, wide):
        self.x, self.dy = case.x, case.dy
        self.y_scale, self.dx_scale = wide.y_scale, wide.dx_scale


@pytest.mark.parametrize(("from_memory", "stream"), MEMORY)
@pytest.mark.parametrize("name", SHAPES)
@all_halves
def test_sizes_around_the_kernels_blocks(monkeypatch, rng, name, dtype, from_memory, stream):
    force_schedule(monkeypatch, lambda _: (from_memory, stream, 1 << 20, 2))
    norm, shape, *options = SHAPES[name]
    case = build_norm_case(rng, norm, shape, *options, dtype=np.float64, mean=3.0)
    assert_norm_nearest(replace(case, x=halved(case.x, dtype), dy=halved(case.dy, dtype)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("offset", [0, 1, 2, 15, 16, 31])
@pytest.mark.parametrize(("shape", "axis"), [((70, 96), 1), ((3, 64, 35, 35), 1), ((3, 2, 999), 1)])
@all_halves
def test_any_alignment_of_a_line(monkeypatch, rng, dtype, shape, axis, offset, stream):
    """x and out begin anywhere in a cache line of 32 values, and nothing beside out is written."""
    force_schedule(monkeypatch, lambda _: (True, stream, 1 << 20, 1))
    case = make_case(rng, shape, axis, np.float64)
    x = halved(case.x, dtype)
    expected, _ = cybn.forward(x, axis=axis)
    for in_offset in (0, 31 - offset):
        memory = np.zeros(x.size + 128, dtype)
        start = -(memory.ctypes.data // 2) % 32
        source = memory[start + in_offset :][: x.size].reshape(shape)
        source[...] = x
        target = np.full(x.size + 128, 7, dtype)
        out = target[start + offset :][: x.size].reshape(shape)
        cybn.forward(source, axis=axis, out=out)
        assert_array_equal(out.view(np.uint16), expected.view(np.uint16))
        assert np.count_nonzero(target.view(np.uint16) == np.array(7, dtype).view(np.uint16)) >= 128
        assert (target[: start + offset] == 7).all()
        assert (target[start + offset + x.size :] == 7).all()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@all_halves
def test_any_layout(rng, dtype, layout):
    if dtype == BFLOAT16 and layout is LAYOUTS["column of records"]:
        pytest.skip("NumPy makes no records of bfloat16")
    x, dy = (nearest(rng.normal(size=(5, 3, 4)), dtype) for _ in range(2))
    y, cache = cybn.forward(x)
    other, other_cache = cybn.forward(layout(x))
    assert other.dtype == dtype
    assert_same_numbers(other, y)
    assert_same_numbers(cybn.backward(layout(dy), other_cache).dx, cybn.backward(dy, cache).dx)


@all_halves
def test_in_place_and_out(rng, dtype):
    x, dy = (nearest(rng.normal(size=(6, 3, 5)), dtype) for _ in range(2))
    running = {"running_mean": np.zeros(3, dtype), "running_var": np.ones(3, dtype)}
    expected, cache = cybn.forward(x, training=False, **running)
    dx = cybn.backward(dy, cache).dx
    out = np.empty_like(dy)
    assert cybn.backward(dy, cache, out=out).dx is out
    assert_same_numbers(out, dx)
    assert cybn.backward(dy, cache, out=dy).dx is dy
    assert_same_numbers(dy, dx)
    y, _ = cybn.forward(x, training=False, out=x, **running)
    assert y is x
    assert_same_numbers(x, expected)


def test_each_type_is_told_from_the_other():
    """They have the same size."""
    halves = [np.ones((4, 3), dtype) for dtype in HALVES.values()]
    for x, other in (halves, halves[::-1]):
        with pytest.raises(TypeError, match=rf"out: expected {x.dtype}, got {other.dtype}"):
            cybn.forward(x, out=other)
        _, cache = cybn.forward(x)
        assert cybn.backward(other, cache).dx.dtype == x.dtype
        with pytest.raises(TypeError, match="out"):
            cybn.backward(x, cache, out=other)
        as_other = x.view(other.dtype)
        running = {"running_mean": np.zeros(3), "running_var": np.ones(3)}
        with pytest.raises((TypeError, ValueError), match="out"):
            cybn.forward(x, out=as_other, training=False, **running)


def test_what_has_only_the_name_or_the_size():
    for dtype in (ml_dtypes.float8_e4m3fn, "V2", [("bfloat16", "u2")]):
        with pytest.raises(TypeError, match="x: expected float16, bfloat16, float32 or float64"):
            cybn.forward(np.zeros((4, 3), dtype))
        with pytest.raises(TypeError, match="dtype: expected float16, bfloat16"):
            cybn.BatchNorm(3, dtype=dtype)


@all_halves
def test_moments(rng, dtype):
    x = nearest(rng.normal(5, 2, (50, 3)), dtype)
    one, other = cybn.moments(x), cybn.moments(values_of(x))
    assert_array_equal(one.mean, other.mean)
    assert_array_equal(one.m2, other.m2)


LAYERS = {
    "BatchNorm": (lambda dtype: cybn.BatchNorm(4, dtype=dtype)),
    "LayerNorm": (lambda dtype: cybn.LayerNorm(4, dtype=dtype)),
    "RMSNorm": (lambda dtype: cybn.RMSNorm(4, dtype=dtype)),
    "GroupNorm": (lambda dtype: cybn.GroupNorm(2, 4, dtype=dtype)),
    "InstanceNorm": (
        lambda dtype: cybn.InstanceNorm(4, affine=True, track_running_stats=True, dtype=dtype)
    ),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@all_halves
def test_layers(rng, dtype, make):
    layer = make(dtype)
    x = nearest(rng.normal(size=(5, 4, 4)), dtype)
    y = layer(x)
    assert y.dtype == layer.backward(x).dtype == layer.dgamma.dtype == layer.gamma.dtype == dtype
    assert layer.state_dict()["weight"].dtype == dtype
    assert str(dtype) in repr(layer)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), make(dtype)):
        twin.load_state_dict(layer.state_dict())
        assert twin.dtype == dtype
        assert_same_numbers(twin.eval()(x), layer.eval()(x))


@all_halves
def test_pickled_cache(rng, dtype):
    x = nearest(rng.normal(size=(5, 3)), dtype)
    _, cache = cybn.forward(x, np.ones(3, dtype))
    again = pickle.loads(pickle.dumps(cache))
    for one, other in zip(cybn.backward(x, again)[:2], cybn.backward(x, cache)[:2], strict=True):
        assert_same_numbers(one, other)


def test_state_of_bfloat16_in_a_file(tmp_path):
    """np.save keeps two bytes and no name: `view` gives it back."""
    layer = cybn.LayerNorm(3, dtype=BFLOAT16)
    np.savez(tmp_path / "state", **layer.state_dict())
    with np.load(tmp_path / "state.npz") as file:
        state = dict(file)
    with pytest.raises(
        TypeError, match=r"state\['weight'\]: .* use .*\.view\(ml_dtypes\.bfloat16\)"
    ):
        layer.load_state_dict(state)
    with pytest.raises(TypeError, match=r"x: .* use x\.view\(ml_dtypes\.bfloat16\)"):
        cybn.layer_norm(state["weight"])
    layer.load_state_dict({key: value.view(BFLOAT16) for key, value in state.items()})


@pytest.mark.parametrize("wide", DTYPES)
@all_halves
def test_parameters_of_16_bit_beside_wider_x(rng, dtype, wide):
    case = make_case(rng, (20, 3), 1, wide)
    names = "gamma", "beta", "running_mean", "running_var"
    halves = replace(case, **{name: halved(getattr(case, name), dtype) for name in names})
    actual, expected = run_cybn(halves), run_cybn(widened(halves, names))
    assert_array_equal(actual.y, expected.y)
    assert_array_equal(actual.dx, expected.dx)
    assert_same_numbers(actual.dgamma, nearest(expected.dgamma, dtype))
    assert_same_numbers(actual.running_var, nearest(expected.running_var, dtype))
