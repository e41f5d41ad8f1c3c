"""moments: statistics of pieces, which merge to those of the whole."""

import copy
import pickle
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from cases import DTYPES, SHAPES
from checks import assert_close, refused
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import cybn


def exact(x, axis=1):
    """Mean and biased variance of each channel, in two passes of longdouble."""
    rows = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.longdouble)
    return rows.mean(axis=1), rows.var(axis=1)


def assert_same_moments(actual, expected, tolerance=1e-14):
    assert_array_equal(actual.count, expected.count)
    std = expected.std()
    assert np.all(np.abs(actual.mean - expected.mean) <= tolerance * (np.abs(expected.mean) + std))
    assert np.all(np.abs(actual.m2 - expected.m2) <= tolerance * expected.m2)


def test_by_hand():
    moments = cybn.moments(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert isinstance(moments, cybn.Moments)
    assert moments.count == 2
    assert_array_equal(moments.mean, [2.0, 5.0])
    assert_array_equal(moments.m2, [2.0, 0.0])
    assert_array_equal(moments.var(), [1.0, 0.0])
    assert_array_equal(moments.var(ddof=1), [2.0, 0.0])
    assert_array_equal(moments.std(ddof=1), [np.sqrt(2.0), 0.0])
    assert_array_equal(moments.std(), [1.0, 0.0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_sizes_around_the_kernels_blocks(rng, name, dtype):
    shape, axis = SHAPES[name]
    x = rng.normal(3.0, 2.0, shape).astype(dtype)
    moments = cybn.moments(x, axis)
    mean, var = exact(x, axis)
    assert moments.count == x.size // shape[axis]
    assert moments.mean.dtype == moments.m2.dtype == np.float64
    assert_close(moments.mean, mean, 1e-14)
    assert_close(moments.var(), var, 1e-13)


@pytest.mark.parametrize("offset", [1e4, 1e6])
@pytest.mark.parametrize("axis", [1, -1])
def test_far_from_0(rng, axis, offset):
    x = rng.normal(offset, 1.0, (8, 16, 28, 16)).astype(np.float32)
    mean, var = exact(x, axis)
    moments = cybn.moments(x, axis)
    assert_close(moments.mean, mean, 1e-15)
    assert_close(moments.var(), var, 1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_sums_that_are_exact_in_any_order(rng, name, dtype):
    """Small integers with an integer mean: it must be equal, without a tolerance."""
    shape, axis = SHAPES[name]
    n = np.prod(shape) // shape[axis]
    values = rng.integers(-8, 9, (shape[axis], n))
    values -= np.arange(n) < (values.sum(axis=1) % n)[:, None]
    mean = values.sum(axis=1) // n
    others = [length for i, length in enumerate(shape) if i != axis % len(shape)]
    x = np.moveaxis(values.reshape(shape[axis], *others), 0, axis).astype(dtype)

    moments = cybn.moments(x, axis)

    assert_array_equal(moments.mean, mean)
    np.testing.assert_allclose(
        moments.m2, np.square(values - mean[:, None]).sum(axis=1), rtol=3e-16
    )


@pytest.mark.parametrize("options", [{}, {"axis": -1}, {"axis": 0}])
def test_are_what_forward_uses(rng, options):
    x = rng.normal(3.0, 2.0, (6, 7, 8)).astype(np.float32)
    _, cache = cybn.forward(x, **options)
    moments = cybn.moments(x, **options)
    assert moments.count == cache.count
    assert_array_equal(moments.mean, cache.mean)
    assert_close(moments.var(), cache.var, 1e-15)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool, ">f4"])
def test_other_types_are_converted(rng, dtype):
    x = rng.integers(0, 2, (6, 3)).astype(dtype)
    expected = cybn.moments(x.astype(np.float64))
    assert_same_moments(cybn.moments(x), expected)
    assert_same_moments(cybn.moments(x.tolist()), expected)


def test_made_from_lists():
    moments = cybn.Moments([2, 0], [1.0, 0.0], [0.5, 0.0])
    assert moments.count.dtype == np.int64
    assert_array_equal(moments.var(), [0.25, np.nan])
    assert_array_equal((moments + cybn.Moments(2, [3, 3], [0, 0])).mean, [2.0, 3.0])


@pytest.mark.parametrize(
    ("count", "m2", "error", "name"),
    [
        (2.0, [1.0, 1.0], TypeError, "count"),
        ([2.0, 2.0], [1.0, 1.0], TypeError, "count"),
        (-1, [1.0, 1.0], ValueError, "count"),
        ([2], [1.0, 1.0], ValueError, "count"),
        (2, [1.0], ValueError, "m2"),
        ([2, -1], [1.0, 1.0], ValueError, "count"),
        (np.array([2**63, 1], np.uint64), [1.0, 1.0], ValueError, "count"),
        (2**63, [1.0, 1.0], ValueError, "count"),
        (2, [1j, 1.0], TypeError, "m2"),
        (2, ["1", "2"], TypeError, "m2"),
        (2, [None, 1.0], TypeError, "m2"),
        (2, np.ma.masked_array([1.0, 2.0], [True, False]), TypeError, "m2"),
    ],
)
def test_made_from_parts_that_do_not_fit(count, m2, error, name):
    with pytest.raises(error, match=rf"\b{name}\b"):
        cybn.Moments(count, [1.0, 2.0], m2)


def test_keeps_copies():
    mean, m2 = np.ones(2), np.ones(2)
    moments = cybn.Moments(2, mean, m2)
    mean[:] = m2[:] = 5
    assert_array_equal(moments.mean, [1.0, 1.0])
    assert_array_equal(moments.m2, [1.0, 1.0])


@pytest.mark.parametrize("counts", [(2**62, 1), ([2**62], [1]), ([2**62], 2**62)])
def test_counts_whose_sum_is_too_large(counts):
    first, second = (cybn.Moments(count, [0.0], [0.0]) for count in counts)
    for one, other in ((first, second), (second, first)):
        with pytest.raises(ValueError, match=r"\bcounts?\b"):
            one + other


@pytest.mark.parametrize("state", ["warn", "raise"])
def test_overflow_is_infinite_without_a_warning(state):
    with np.errstate(all=state):
        total = cybn.Moments(1, [1e300], [0.0]) + cybn.Moments(1, [-1e300], [0.0])
        assert_array_equal(total.var(), [np.inf])
        several = cybn.Moments(0, [np.inf], [np.inf]) + cybn.Moments(0, [-np.inf], [np.inf])
        assert np.isnan(several.std())


@pytest.mark.parametrize(("mean", "size"), [(0.0, 1), (3.0, 1), (1e4, 1), (1e4, 7)])
def test_merging_rounds_as_documented(rng, mean, size):
    """Against exact fractions: of every merge a rounding, whose size is that of the mean's."""
    x = rng.normal(mean, 1.0, 1000)
    values = [Fraction(value) for value in x.tolist()]
    exact_mean = sum(values) / len(values)
    exact_m2 = sum((value - exact_mean) ** 2 for value in values)
    total = sum(cybn.moments(x[i : i + size, None]) for i in range(0, len(x), size))
    allowed = 2.3e-16 * len(x) / size
    assert abs(Fraction(total.mean[0]) - exact_mean) <= allowed * (mean + 1)
    assert abs(Fraction(total.m2[0]) - exact_m2) <= allowed * (mean + 1) * exact_m2


@pytest.mark.parametrize(("ddof", "error"), [(-1, ValueError), ("1", TypeError), (None, TypeError)])
def test_bad_ddof(ddof, error):
    moments = cybn.moments(np.ones((4, 3)))
    for method in moments.var, moments.std:
        with pytest.raises(error, match=r"\bddof\b"):
            method(ddof)


def test_one_value_a_channel():
    moments = cybn.moments(np.array([[1.0, 2.0]]))
    assert moments.count == 1
    assert_array_equal(moments.var(), [0.0, 0.0])
    assert_array_equal(moments.var(ddof=1), [np.nan, np.nan])


class TestMerging:
    # Cuts of 120 rows into pieces, of which some are empty, and an order to merge them in.
    pieces = st.lists(st.integers(0, 120), max_size=12).map(lambda cuts: [0, *sorted(cuts), 120])

    @given(cuts=pieces, seed=st.integers(0, 2**32 - 1), offset=st.sampled_from([0.0, 3.0, -50.0]))
    def test_any_grouping_agrees(self, cuts, seed, offset):
        rng = np.random.default_rng(seed)
        x = rng.normal(offset, 2.0, (120, 5, 3)).astype(np.float32)
        parts = [cybn.moments(x[start:end]) for start, end in pairwise(cuts)]
        whole = cybn.moments(x)
        assert_same_moments(sum(parts), whole)
        while len(parts) > 1:
            first, second = (parts.pop(rng.integers(len(parts))) for _ in range(2))
            parts.append(first + second)
        assert_same_moments(parts[0], whole)

    def test_by_the_formula(self):
        """Chan, Golub, LeVeque 1979: 1, 3 and 8, 8, 8, 8."""
        merged = cybn.moments([[1.0], [3.0]]) + cybn.moments([[8.0]] * 4)
        assert merged.count == 6
        assert_array_equal(merged.mean, [6.0])
        assert_array_equal(merged.m2, [2 + 0 + 6.0**2 * 2 * 4 / 6])

    def test_sum_with_a_start(self, rng):
        parts = [cybn.moments(rng.normal(size=(n, 3))) for n in (5, 7, 2)]
        expected = sum(parts)
        assert_same_moments(sum(parts[1:], parts[0]), expected)
        assert_same_moments(sum(parts[:1]), parts[0])

    def test_leaves_the_parts_as_they_were(self, rng):
        first, second = (cybn.moments(rng.normal(size=(n, 3))) for n in (5, 7))
        before = copy.deepcopy((first, second))
        total = first
        total += second
        for part, old in zip((first, second), before, strict=True):
            assert_same_moments(part, old, tolerance=0)
        assert total.count == 12

    @pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (5, 3, 0)])
    def test_empty_part_changes_nothing(self, rng, shape):
        empty = cybn.moments(np.empty(shape))
        assert empty.count == 0
        assert np.isnan(empty.var()).all()
        moments = cybn.moments(rng.normal(size=(5, 3)))
        assert_same_moments(empty + moments, moments, tolerance=0)
        assert_same_moments(moments + empty, moments, tolerance=0)
        assert (empty + empty).count == 0

    def test_large_counts_are_exact(self):
        """They are ints, and their product is beyond int64."""
        half = cybn.Moments(2**40, np.array([1.0]), np.array([0.0]))
        other = cybn.Moments(2**40, np.array([3.0]), np.array([0.0]))
        merged = half + other
        assert merged.count == 2**41
        assert_array_equal(merged.mean, [2.0])
        assert_array_equal(merged.var(), [1.0])

    def test_nan_stays_in_its_channel(self, rng):
        x = rng.normal(size=(8, 3))
        clean = cybn.moments(x)
        x[5, 1] = np.nan
        merged = cybn.moments(x[:4]) + cybn.moments(x[4:])
        assert np.isnan(merged.mean[1])
        assert np.isnan(merged.var()[1])
        assert_close(merged.mean[[0, 2]], clean.mean[[0, 2]], 1e-14)

    @pytest.mark.parametrize("other", [1, 1.0, "moments", None, np.ones(3)])
    def test_with_something_else(self, rng, other):
        moments = cybn.moments(rng.normal(size=(5, 3)))
        with pytest.raises(TypeError):
            moments + other
        with pytest.raises(TypeError):
            other + moments

    def test_parts_of_another_number_of_channels(self, rng):
        parts = [cybn.moments(rng.normal(size=(5, channels))) for channels in (3, 4)]
        with pytest.raises(ValueError, match=r"\(3,\).*\(4,\)"):
            parts[0] + parts[1]


class TestMasked:
    def test_are_those_of_the_selected_values(self, rng):
        x = rng.normal(3.0, 2.0, (6, 5, 4))
        where = rng.random((6, 1, 4)) < 0.5
        rows = np.moveaxis(x, 1, -1)[where[:, 0]]
        x[~np.broadcast_to(where, x.shape)] = np.nan

        moments = cybn.moments(x, where=where)

        assert_array_equal(moments.count, np.full(5, where.sum()))
        assert_close(moments.mean, rows.mean(axis=0), 1e-14)
        assert_close(moments.var(ddof=1), rows.var(axis=0, ddof=1), 1e-13)

    def test_nothing_selected(self, rng):
        x = rng.normal(size=(6, 5))
        nothing = cybn.moments(x, where=False)
        assert_array_equal(nothing.count, np.zeros(5))
        assert_same_moments(nothing + cybn.moments(x), cybn.moments(x), tolerance=0)

    def test_merge_with_counts_of_their_own(self, rng):
        """For each time step and feature, of sequences of different lengths."""
        x = rng.normal(3.0, 2.0, (20, 6, 4))
        where = (np.arange(6) < rng.integers(0, 7, 20)[:, None])[..., None]
        where[:2] = True
        x[~np.broadcast_to(where, x.shape)] = np.nan
        parts = [
            cybn.moments(x[rows], (1, 2), where[rows]) for rows in np.split(np.arange(20), [1, 9])
        ]
        whole = sum(parts)
        assert_array_equal(whole.count, np.broadcast_to(where.sum(axis=0), (6, 4)))
        assert_close(whole.mean, np.nanmean(x, axis=0), 1e-14)
        assert_close(whole.var(), np.nanvar(x, axis=0), 1e-13)
        assert_same_moments(whole, cybn.moments(x, (1, 2), where))

    @pytest.mark.parametrize("shape", [(3,), (5, 1), (2, 4, 1)])
    def test_mask_of_another_shape(self, shape):
        where = np.ones(shape, bool)
        with refused(ValueError, r"\bwhere\b", where):
            cybn.moments(np.ones((4, 3)), where=where)

    def test_mask_that_is_not_boolean(self):
        with refused(TypeError, r"\bwhere\b"):
            cybn.moments(np.ones((4, 3)), where=np.ones((4, 1)))


def test_several_axes(rng):
    x = rng.normal(3.0, 2.0, (6, 4, 3))
    moments = cybn.moments(x, axis=(1, 2))
    assert moments.count == 6
    assert moments.mean.shape == moments.m2.shape == (4, 3)
    assert_close(moments.mean, x.mean(axis=0), 1e-14)
    assert_close(moments.std(), x.std(axis=0), 1e-13)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(rng, protocol):
    moments = cybn.moments(rng.normal(size=(5, 3)))
    loaded = pickle.loads(pickle.dumps(moments, protocol))
    assert_same_moments(loaded, moments, tolerance=0)
    assert_same_moments(loaded + loaded, moments + moments, tolerance=0)


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"x": np.ones((4, 3), complex)}, TypeError, "x"),
        ({"x": np.ma.ones((4, 3))}, TypeError, "x"),
        ({"x": 1.0}, ValueError, "x"),
        ({"axis": 2}, ValueError, "axis"),
        ({"axis": 1.0}, TypeError, "axis"),
        ({"axis": None}, TypeError, "axis"),
    ],
)
def test_bad_arguments(arguments, error, name):
    with pytest.raises(error, match=rf"\b{name}\b"):
        cybn.moments(**{"x": np.ones((4, 3))} | arguments)
