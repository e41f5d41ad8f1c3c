"""activation= and residual= where results are rounded: once, and y decides the derivative.

float32 and float64 are here, too, where the same has to hold for their smallest numbers.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import reference_fused
from cases import DTYPES, MEMORY, SHAPES, cases, make_case, run_cybn, tracked
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
from reference_fused import ACTIVATIONS
from ways import force_schedule

import cybn

ALL_DTYPES = [np.dtype(dtype) for dtype in (*HALVES.values(), *DTYPES)]
EXACT = ["relu", "relu6"]
all_halves = pytest.mark.parametrize("dtype", HALVES.values(), ids=HALVES)

LEAST = {  # the smallest number above 0, and the distance of numbers below 6
    np.dtype(np.float16): (2.0**-24, 2.0**-8),
    BFLOAT16: (2.0**-133, 2.0**-5),
    np.dtype(np.float32): (2.0**-149, 2.0**-21),
    np.dtype(np.float64): (2.0**-1074, 2.0**-50),
}


def rounded(array, dtype):
    return nearest(array, dtype) if dtype in HALVES.values() else np.asarray(array).astype(dtype)


def halved(array, dtype):
    """An array in a 16-bit type and in its own layout."""
    half = np.empty_like(array, dtype)
    half[...] = nearest(array, dtype)
    return half


def after(activation, y):
    """The activation of a stored norm: -0.0 and NaN stay."""
    values = values_of(y)
    values = np.where(values < 0, 0.0, values)
    if activation == "relu6":
        values = np.where(values > 6, 6.0, values)
    return values.astype(y.dtype)


def assert_same_bits(one, other):
    """But for those of NaN."""
    if one.dtype.itemsize == 2:
        assert_same_numbers(one, other)
    else:
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(np.signbit(one), np.signbit(other))


def telling_values(dtype):
    """float64 values around the ends of the numbers of a type, around 6, and of both signs."""
    least, step = LEAST[dtype]
    values = [k * least / 4 for k in range(10)] + [6 + k * step / 4 for k in range(-9, 10)]
    around = [np.nextafter(value, to) for value in values for to in (-np.inf, np.inf)]
    values = np.array([*values, *around, 1e-300, 1e300, 65504.0, 65520.0, 3e38, np.inf])
    return np.concatenate([values, -values, [np.nan]])


def constants(values, dtype, layout):
    """x, and what makes of it `values` as float64 before the activation, in inference."""
    x = np.zeros((3, len(values)), dtype)
    if layout == "NCHW":
        x = np.zeros((2, len(values), 37), dtype)
    running = {"running_mean": np.zeros(len(values)), "running_var": np.ones(len(values))}
    return x, {"gamma": None, "beta": values, "training": False, **running}


@pytest.mark.parametrize("layout", ["N, C", "NCHW"])
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("activation", EXACT)
def test_equal_to_the_stored_norm_and_then_the_activation(activation, dtype, layout):
    """What rounds to -0.0 stays that, as max(y, 0) of PyTorch leaves it."""
    values = telling_values(dtype)
    x, arguments = constants(values, dtype, layout)
    plain, _ = cybn.batch_norm(x, **arguments)
    y, cache = cybn.batch_norm(x, activation=activation, **arguments)
    assert_same_bits(y, after(activation, plain))
    residual, _ = cybn.batch_norm(x, activation=activation, residual=x, **arguments)
    assert_same_bits(residual, y)
    passes = ~(values_of(y) <= 0) & ~(values_of(y) >= (6 if activation == "relu6" else np.nan))
    np.testing.assert_array_equal(values_of(cybn.backward(x + 1, cache).dx) != 0, passes)


@all_halves
@pytest.mark.parametrize("activation", EXACT)
def test_every_number_of_16_bit(activation, dtype):
    """As x, scaled by 1.5."""
    x = all_numbers(dtype)[:, None]
    arguments = {"gamma": np.array([1.5]), "running_mean": np.zeros(1), "training": False}
    arguments |= {"running_var": np.array([1 - 2.0**-10]), "eps": 2.0**-10}
    plain, _ = cybn.batch_norm(x, **arguments)
    y, _ = cybn.batch_norm(x, activation=activation, **arguments)
    assert_same_bits(y, after(activation, plain))
    with np.errstate(all="ignore"):
        assert_same_bits(plain, nearest(values_of(x) * 1.5 + 0.0, dtype))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SHAPES)
@all_halves
def test_equal_in_every_layout(rng, name, dtype, training):
    """dx, too, is that of the norm for dy where y lets it through."""
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, np.float64, training=training)
    case = replace(case, x=halved(case.x, dtype), dy=halved(case.dy, dtype), gamma=3 * case.gamma)
    plain = run_cybn(case)
    for activation in EXACT:
        running = case.running_mean.copy(), case.running_var.copy()
        y, cache = cybn.batch_norm(
            case.x, case.gamma, case.beta, activation=activation, **case.options, **tracked(running)
        )
        assert_same_numbers(y, after(activation, plain.y))
        values = values_of(y)
        passes = (values > 0) & (values < (6 if activation == "relu6" else np.inf))
        dy = np.where(passes, case.dy, np.zeros((), dtype))
        expected = run_cybn(replace(case, dy=dy))
        gradients = cybn.backward(case.dy, cache)
        assert_same_numbers(gradients.dx, expected.dx)
        np.testing.assert_array_equal(gradients.dgamma, expected.dgamma)
        np.testing.assert_array_equal(gradients.dbeta, expected.dbeta)


def assert_nearest_results(case, activation, residual):
    """Against longdouble: the number nearest to the exact result (SLACK: see `halves`)."""
    running = [None if a is None else a.copy() for a in (case.running_mean, case.running_var)]
    y, cache = cybn.batch_norm(
        case.x, case.gamma, case.beta, activation=activation, residual=residual,
        **case.options, **tracked(running),
    )  # fmt: skip
    gradients = cybn.backward(case.dy, cache)
    wide = replace(case, x=values_of(case.x), dy=values_of(case.dy))
    wide_residual = None if residual is None else values_of(residual)
    exact = reference_fused.run(wide, activation, wide_residual, values_of(y))
    scale = 1.5 * wide.y_scale + (0 if residual is None else np.abs(wide_residual).max())
    if case.beta is not None:
        scale = scale + np.abs(case.beta).max()
    assert y.dtype == gradients.dx.dtype == case.x.dtype
    assert_nearest_half(y, exact[0], 1.5 * scale + np.abs(exact[0]))
    assert_nearest_half(gradients.dx, exact[1], 1.5 * wide.dx_scale * (1 + scale))
    if residual is None:
        assert gradients.dresidual is None
        return
    assert gradients.dresidual.dtype == residual.dtype
    scale = np.abs(wide.dy).max() * (1 + scale)
    if residual.dtype == np.float32:
        error = np.abs(gradients.dresidual - exact[4])
        assert np.all(error <= 2.0**-24 * np.abs(exact[4]) + 1e-9 * scale)
    else:
        assert_nearest_half(gradients.dresidual, exact[4], scale)


def residuals(rng, shape, dtype):
    """None, one of x's dtype and one of float32."""
    values = rng.normal(size=shape)
    return None, nearest(values, dtype), values.astype(np.float32)


@settings(max_examples=200)
@given(case=cases(dtypes=[np.float64]), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_drawn_cases(case, seed, data):
    dtype = data.draw(st.sampled_from([*HALVES.values()]))
    case = replace(case, x=halved(case.x, dtype), dy=halved(case.dy, dtype))
    choices = residuals(np.random.default_rng(seed), case.x.shape, dtype)
    activation = data.draw(st.sampled_from(ACTIVATIONS))
    assert_nearest_results(case, activation, choices[data.draw(st.integers(0, 2))])


@pytest.mark.parametrize(("from_memory", "stream"), MEMORY)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@all_halves
def test_sizes_around_the_kernels_blocks(monkeypatch, rng, dtype, activation, from_memory, stream):
    force_schedule(monkeypatch, lambda _: (from_memory, stream, 1 << 20, 2))
    for name in "N, C", "NCHW", "NHWC", "rows less one":
        shape, axis = SHAPES[name]
        case = make_case(rng, shape, axis, np.float64, mean=3.0)
        case = replace(case, x=halved(case.x, dtype), dy=halved(case.dy, dtype))
        for residual in residuals(rng, shape, dtype):
            assert_nearest_results(case, activation, residual)


@all_halves
def test_sums_overflow_to_infinity(dtype):
    """Only the rounded sum does: what is added is float64."""
    largest = float(all_numbers(dtype)[0x7BFF if dtype == np.float16 else 0x7F7F])
    below = np.nextafter(largest * (1 + (2.0**-12 if dtype == np.float16 else 2.0**-9)), 0)
    beta = np.array([largest, -largest, largest, largest, 1.0, below - largest])
    residual = nearest(np.array([largest, -largest, -largest, 0.0, largest, largest]), dtype)
    x, arguments = constants(beta, dtype, "N, C")
    residual = np.broadcast_to(residual, x.shape).copy()
    sums = beta + values_of(residual)
    for activation in ACTIVATIONS:
        y, cache = cybn.batch_norm(x, activation=activation, residual=residual, **arguments)
        with np.errstate(over="ignore"):
            exact = reference_fused.value(activation, sums.astype(np.longdouble))
        assert_same_numbers(y, np.broadcast_to(nearest(exact, dtype), y.shape).copy())
        if activation in (None, "relu"):
            assert values_of(y)[0, 0] == np.inf
            assert values_of(y)[0, 3] == values_of(y)[0, 5] == largest
        gradients = cybn.backward(nearest(np.full(x.shape, largest), dtype), cache)
        assert not np.isnan(values_of(gradients.dresidual)).any()


def border_cases(dtype):
    """Values before the activation, and whether the stored y is 0, above 0, and 6."""
    least, step = LEAST[dtype]
    if dtype == np.float64:  # y is the value itself
        return [(least, "above"), (-least, "zero"), (6 - step, "above"), (6.0, "six")]
    return [
        (least / 2, "zero"),  # a tie, to even
        (least * 0.49, "zero"),
        (-least / 4, "zero"),
        (np.nextafter(least / 2, 1), "above"),
        (least, "above"),
        (6 - step / 2, "six"),  # a tie, to even
        (6 - step / 4, "six"),
        (np.nextafter(6 - step / 2, 0), "above"),
        (6 - step, "above"),
        (6 + step, "six"),
    ]


def factor(activation, border):
    """The derivative there, of what y decides."""
    if isinstance(activation, tuple):
        return activation[1] if border == "zero" else 1.0
    return float(border == "above" or (border == "six" and activation == "relu"))


@pytest.mark.parametrize("layout", ["N, C", "NCHW"])
@pytest.mark.parametrize("by", ["beta", "residual", "both"])
@pytest.mark.parametrize("activation", [*EXACT, ("leaky_relu", 0.25)], ids=str)
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_the_stored_y_decides(dtype, activation, by, layout):
    """dx, dgamma's and dbeta's sums and dresidual where y underflows to 0 or is rounded to 6."""
    values, borders = zip(*border_cases(dtype), strict=True)
    values = np.array(values)
    beta, residual = values, None
    if by == "residual":  # of float32 beside 16 bit, else of what the type can hold
        if dtype == BFLOAT16 or dtype == np.float16:
            residual = values.astype(np.float32)
            exact = residual == values  # but for the smallest bfloat16 numbers
        else:
            residual = rounded(values, dtype)
            exact = residual.astype(np.float64) == values
        beta = np.where(exact, 0.0, values)
        residual = np.where(exact, residual, residual.dtype.type(0))
    elif by == "both":
        residual = rounded(np.where(values > 1, 1.0, 0.0), dtype)
        beta = values - values_of(residual)
    x, arguments = constants(beta, dtype, layout)
    shape = [1] * x.ndim
    shape[1] = -1
    if residual is not None:
        residual = np.broadcast_to(residual.reshape(shape), x.shape).copy()
    arguments["gamma"] = np.ones(len(values))
    _, cache = cybn.batch_norm(x, activation=activation, residual=residual, **arguments)
    gradients = cybn.backward(np.full_like(x, 4), cache)
    expected = 4 * np.array([factor(activation, border) for border in borders])
    count = x.size // len(values)
    np.testing.assert_array_equal(gradients.dbeta, expected * count)
    dx = expected.reshape(shape) / np.sqrt(1 + 1e-5)
    np.testing.assert_array_equal(
        values_of(gradients.dx), np.broadcast_to(values_of(rounded(dx, dtype)), x.shape)
    )
    if residual is not None:
        np.testing.assert_array_equal(
            values_of(gradients.dresidual), np.broadcast_to(expected.reshape(shape), x.shape)
        )


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_the_stored_y_decides_in_training(rng, dtype):
    """As often as it is 6 by rounding alone, for 16 bit: 1 of 300 values is."""
    for (shape, axis), residual in product([((4096, 8), 1), ((8, 4, 999), 1)], [False, True]):
        x = rounded(rng.normal(size=shape), dtype)
        added = rounded(rng.normal(size=shape), dtype) if residual else None
        y, cache = cybn.batch_norm(
            x, np.full(shape[axis], 4.0), np.full(shape[axis], 2.0), residual=added,
            activation="relu6",
        )  # fmt: skip
        dy = rounded(np.ones(shape), dtype)
        passes = (values_of(y) > 0) & (values_of(y) < 6)
        others = tuple(i for i in range(len(shape)) if i != axis)
        np.testing.assert_array_equal(cybn.backward(dy, cache).dbeta, passes.sum(axis=others))
