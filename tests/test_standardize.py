"""Moments: standardizing by them, the inverse, and merging many."""

import functools
import operator
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from cases import DTYPES, SHAPES
from checks import assert_nearest, refused
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import cybn


def exactly_standardized(x, axis=1, ddof=0, eps=0):
    """In longdouble, in two passes; also mean and divisor, which broadcast against x."""
    x = x.astype(np.longdouble)
    others = tuple(np.delete(np.arange(x.ndim), axis))
    mean, var = x.mean(others, keepdims=True), x.var(others, ddof=ddof, keepdims=True)
    return (x - mean) / np.sqrt(var + eps), mean, np.sqrt(var + eps)


def shifted(rng, shape, axis, dtype, offset, std=2.0):
    return rng.normal(offset * std, std, shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("options", [{}, {"ddof": 1}, {"eps": 0.5}])
def test_is_the_nearest_number(rng, dtype, offset, options):
    x = shifted(rng, (50, 7, 3), 1, dtype, offset)
    exact, mean, std = exactly_standardized(x, **options)
    y = cybn.moments(x).standardize(x, **options)
    assert y.dtype == dtype
    assert_nearest(y, exact, 1.0, mean / std)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_sizes_around_the_kernels_blocks(rng, name, dtype):
    shape, axis = SHAPES[name]
    x = shifted(rng, shape, axis, dtype, 1.5)
    moments = cybn.moments(x, axis)
    if moments.count > 1:
        exact, *_ = exactly_standardized(x, axis)
        # Of two or three values the deviation may be a part of their mean.
        offset = np.max(np.abs(moments.mean) / moments.std())
        assert_nearest(moments.standardize(x, axis=axis), exact, 1.0, offset)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_inverse(rng, dtype):
    x = shifted(rng, (50, 7, 3), 1, dtype, 1e3)
    moments = cybn.moments(x)
    y = rng.normal(size=x.shape).astype(dtype)
    exact = y.astype(np.longdouble) * moments.std()[:, None] + moments.mean[:, None]
    assert_nearest(moments.unstandardize(y), exact, np.abs(exact))
    for options in ({}, {"ddof": 1, "eps": 3.0}):
        back = moments.unstandardize(moments.standardize(x, **options), **options)
        # A rounding of y, up to 5, in units of the deviation; and one of the result.
        allowed = np.finfo(dtype).eps * (8 * moments.scale(**options)[:, None] + np.abs(x))
        assert np.all(np.abs(back - x) <= allowed)


def test_training_set_standardizes_the_test_set(rng):
    train, test = rng.normal(3.0, 2.0, (60, 4)), rng.normal(3.0, 2.0, (20, 4))
    np.testing.assert_allclose(
        cybn.moments(train).standardize(test), (test - train.mean(0)) / train.std(0), rtol=1e-12
    )


@pytest.mark.parametrize(("axis", "shape"), [(0, (4, 5, 6)), (-1, (5, 6, 4)), ((1, 2), (5, 2, 2))])
def test_axes(rng, axis, shape):
    x = rng.normal(3.0, 2.0, shape)
    moments = cybn.moments(x, axis)
    y = moments.standardize(x, axis=axis)
    again = cybn.moments(y, axis)
    assert_array_equal(np.abs(again.mean) < 1e-14, True)
    np.testing.assert_allclose(again.var(), 1, rtol=1e-13)
    np.testing.assert_allclose(moments.unstandardize(y, axis=axis), x, rtol=1e-14)


class TestConstantChannels:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("value", [0.0, 0.1, -1e8 / 3, 1e30])
    def test_give_exactly_0(self, value, dtype):
        x = np.full((101, 3), value, dtype)
        total = sum(cybn.moments(part) for part in np.split(x, [3, 50, 51]))
        for moments in cybn.moments(x), total, cybn.Moments.merge([total, total]):
            assert_array_equal(moments.scale(), 1.0)
            y = moments.standardize(x)
            assert_array_equal(y, 0.0)
            assert not np.signbit(y).any()
            assert_array_equal(moments.unstandardize(y), x)
            assert_array_equal(moments.standardize(x, eps=1e-5), 0.0)

    def test_are_not_scaled_elsewhere(self):
        moments = cybn.moments(np.full((5, 1), 3.0))
        assert_array_equal(moments.standardize([[3.0], [10.0]]), [[0.0], [7.0]])
        assert_array_equal(moments.unstandardize([[7.0]]), [[10.0]])

    def test_one_value(self):
        assert_array_equal(cybn.moments([[4.0]]).standardize([[4.0], [5.0]]), [[0.0], [1.0]])
        assert np.isnan(cybn.moments([[4.0]]).standardize([[4.0]], ddof=1)).all()

    def test_up_to_the_rounding_of_the_mean(self):
        """0.1 + 0.2 is not 0.3, but who writes it means a constant."""
        x = np.array([[0.3], [0.1 + 0.2]] * 50)
        assert np.ptp(x) > 0
        assert np.all(np.abs(cybn.moments(x).standardize(x)) < 1e-15)

    def test_not_if_a_float32_differs(self):
        """The least there is to differ has many digits in float64."""
        x = np.full((1000, 1), 1e4, np.float32)
        x[7] = np.nextafter(x[7], np.float32(np.inf))
        y = cybn.moments(x).standardize(x)
        exact, *_ = exactly_standardized(x)
        np.testing.assert_allclose(y, exact.astype(np.float64), rtol=1e-6)


class TestNaN:
    def test_stays_where_it_is(self, rng):
        train, x = rng.normal(size=(2, 20, 3))
        expected = cybn.moments(train).standardize(x)
        x[4, 1] = expected[4, 1] = np.nan
        assert_array_equal(cybn.moments(train).standardize(x), expected)

    def test_in_the_moments_makes_its_channel_nan(self, rng):
        x = rng.normal(size=(20, 3))
        expected = cybn.moments(x).standardize(x)
        train = x.copy()
        train[4, 1] = expected[:, 1] = np.nan
        assert_array_equal(cybn.moments(train).standardize(x), expected)

    def test_left_out(self, rng):
        x = rng.normal(5.0, 2.0, (40, 3))
        x[rng.random(x.shape) < 0.3] = np.nan
        y = cybn.moments(x, (1,), where=~np.isnan(x)).standardize(x)
        np.testing.assert_allclose(
            y, (x - np.nanmean(x, 0)) / np.nanstd(x, 0), rtol=1e-12, atol=1e-14
        )

    def test_of_a_channel_without_values(self):
        moments = cybn.moments(np.ones((4, 2)), (1,), where=np.array([[True, False]]))
        assert_array_equal(moments.standardize(np.ones((1, 2))), [[0.0, np.nan]])
        assert_array_equal(moments.unstandardize(np.ones((1, 2))), [[2.0, np.nan]])

    @pytest.mark.parametrize("state", ["warn", "raise"])
    def test_and_infinity_without_a_warning(self, state):
        with np.errstate(all=state):
            for x in (
                [[np.nan], [1.0]],
                [[np.inf], [1.0]],
                [[1e300], [-1e300]],
                [[1e154], [-1e154]] * 9,
            ):
                moments = cybn.moments(x)
                moments.unstandardize(moments.standardize(x))


@pytest.mark.parametrize(("dtype", "result"), [(np.uint8, np.float32), (np.int64, np.float64)])
def test_other_types_are_converted(rng, dtype, result):
    x = rng.integers(0, 200, (6, 3)).astype(dtype)
    moments = cybn.moments(x)
    for method in moments.standardize, moments.unstandardize:
        assert method(x).dtype == result
        assert_array_equal(method(x), method(x.astype(result)))
        assert_array_equal(method(x.tolist()), method(x.astype(np.float64)))


@pytest.mark.parametrize("x", [np.ones((0, 3)), np.ones((4, 3, 0), np.float32)])
def test_of_no_values(rng, x):
    y = cybn.moments(rng.normal(size=(6, 3))).standardize(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype


@pytest.mark.parametrize("method", ["standardize", "unstandardize"])
class TestOut:
    def test_receives_the_result(self, rng, method):
        x = rng.normal(5.0, 2.0, (30, 3))
        method = getattr(cybn.moments(x), method)
        expected = method(x)
        out = np.empty_like(x)
        assert method(x, out=out) is out
        assert_array_equal(out, expected)
        assert method(x, out=x) is x
        assert_array_equal(x, expected)

    def test_that_does_not_fit(self, rng, method):
        x = rng.normal(5.0, 2.0, (30, 3))
        method = getattr(cybn.moments(x), method)
        for out, error in ((x.astype(np.float32), TypeError), (np.ones((30, 4)), ValueError)):
            with refused(error, r"\bout\b", out):
                method(x, out=out)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"x": np.ones((4, 2))}, ValueError, r"\bx\b.*\(3,\) on axis 1.*\(2,\)"),
        ({"x": np.ones((3, 4))}, ValueError, r"\bx\b"),
        ({"x": np.ones(3)}, ValueError, r"\baxis\b"),
        ({"x": np.ones((4, 3), complex)}, TypeError, r"\bx\b"),
        ({"axis": 2}, ValueError, r"\baxis\b"),
        ({"axis": 1.0}, TypeError, r"\baxis\b"),
        ({"eps": -1e-5}, ValueError, r"\beps\b.*>= 0"),
        ({"eps": np.inf}, ValueError, r"\beps\b"),
        ({"eps": "0"}, TypeError, r"\beps\b"),
        ({"ddof": -1}, ValueError, r"\bddof\b"),
        ({"ddof": 0.5}, TypeError, r"\bddof\b"),
    ],
)
def test_bad_arguments(arguments, error, match):
    arguments = {"x": np.ones((4, 3))} | arguments
    x = arguments.pop("x")
    moments = cybn.moments(np.arange(12.0).reshape(4, 3))
    out = np.zeros_like(x)
    with refused(error, match, out):
        moments.standardize(x, out=out, **arguments)
    with refused(error, match.replace(r"\bx\b", r"\by\b"), out):
        moments.unstandardize(x, out=out, **arguments)


def test_the_same_bits_on_any_number_of_threads(rng):
    x = rng.normal(5.0, 2.0, (40_000, 50)).astype(np.float32)
    with cybn.num_threads(1):
        expected = cybn.moments(x).standardize(x)
    with cybn.num_threads(3):
        assert_array_equal(cybn.moments(x).standardize(x), expected)


class TestMerge:
    pieces = st.lists(st.integers(0, 60), max_size=12).map(lambda cuts: [0, *sorted(cuts), 60])

    @given(cuts=pieces, seed=st.integers(0, 2**32 - 1))
    def test_any_cut_agrees(self, cuts, seed):
        x = np.random.default_rng(seed).normal(3.0, 2.0, (60, 4))
        merged = cybn.Moments.merge(cybn.moments(x[start:end]) for start, end in pairwise(cuts))
        assert isinstance(merged, cybn.Moments)
        assert merged.count == 60
        np.testing.assert_allclose(merged.mean, x.mean(0), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(merged.var(), x.var(0), rtol=1e-13)

    def test_rounds_as_often_as_documented(self, rng):
        """Each level of the tree rounds by 2.3e-16, as documented in `moments`; there are ten."""
        x = rng.normal(1e4, 1.0, 1000)
        exact = sum(map(Fraction, x.tolist())) / 1000
        parts = [cybn.moments(value.reshape(1, 1)) for value in x]
        error = abs(Fraction(cybn.Moments.merge(parts).mean[0]) - exact)
        assert error <= 10 * 2.3e-16 * (1e4 + 1)
        assert_array_equal(functools.reduce(operator.add, parts).count, 1000)

    def test_one(self, rng):
        part = cybn.moments(rng.normal(size=(5, 3)))
        assert_array_equal(cybn.Moments.merge([part]).mean, part.mean)

    @pytest.mark.parametrize(
        ("parts", "error"),
        [([], ValueError), ([0], TypeError), ([cybn.moments([[1.0]]), None], TypeError)],
    )
    def test_of_something_else(self, parts, error):
        with pytest.raises(error, match=r"\bparts\b"):
            cybn.Moments.merge(parts)

    def test_of_other_shapes(self):
        with pytest.raises(ValueError, match=r"\(1,\).*\(2,\)"):
            cybn.Moments.merge([cybn.moments([[1.0]]), cybn.moments([[1.0, 2.0]])])
