"""cybn.dask: the numbers of cybn, in any chunks, whoever computes them."""

from dask_peer import (
    CHUNKED,
    TOLERANCE,
    assert_same_bits,
    assert_same_moments,
    drawn,
    refused,
    with_unknown_lengths,
)

import dask
import dask.array as da
import dask.array.tests.test_reductions as of_dask
import numpy as np
import pytest
from dask.delayed import Delayed, delayed
from halves import HALVES
from levels import run_python_unchecked
from numpy.testing import assert_array_equal

import cybn
import cybn.dask

all_chunks = pytest.mark.parametrize("name", CHUNKED)
DTYPES = {**HALVES, **{name: np.dtype(name) for name in ("float32", "float64", "int16", "uint8")}}


@pytest.fixture(autouse=True)
def _in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


class TestMoments:
    @all_chunks
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_of_any_chunks_are_those_of_the_whole(self, rng, name, dtype):
        x, axis, array = drawn(rng, name, DTYPES[dtype])
        lazy = cybn.dask.moments(array, axis)
        assert isinstance(lazy, Delayed)
        assert_same_moments(lazy.compute(), cybn.moments(x, axis))

    @all_chunks
    def test_of_unknown_lengths(self, rng, name):
        x, axis, array = drawn(rng, name)
        unknown = with_unknown_lengths(array)
        assert np.isnan(unknown.shape[0])
        assert_same_moments(cybn.dask.moments(unknown, axis).compute(), cybn.moments(x, axis))

    @all_chunks
    @pytest.mark.parametrize("unknown", [False, True])
    def test_of_what_a_mask_selects(self, rng, name, unknown):
        x, axis, array = drawn(rng, name)
        x[x > 15] = np.nan
        array = da.from_array(x, chunks=array.chunks)
        array = with_unknown_lengths(array) if unknown else array
        actual = cybn.dask.moments(array, axis, where=~da.isnan(array)).compute()
        assert_same_moments(actual, cybn.moments(x, axis, where=~np.isnan(x)))

    @pytest.mark.parametrize("shape", [(6, 1, 9, 11), (6, 1, 1, 1), (9, 11), (1, 17, 1, 1)])
    @pytest.mark.parametrize("kind", ["NumPy's", "chunked otherwise", "of unknown lengths"])
    def test_of_masks_that_broadcast(self, rng, shape, kind):
        x, axis, array = drawn(rng, "NCHW, all")
        where = rng.random(shape) < 0.6
        given = where if kind == "NumPy's" else da.from_array(where, chunks=3)
        if kind == "of unknown lengths":
            array = with_unknown_lengths(array)
            if shape[0] == 6:  # in the array's chunks
                given = with_unknown_lengths(given.rechunk({0: 2}))
        actual = cybn.dask.moments(array, axis, given).compute()
        assert_same_moments(actual, cybn.moments(x, axis, where))

    def test_empty_chunks_count_for_nothing(self, rng):
        x = rng.normal(size=(12, 4))
        array = da.from_array(x, chunks=((0, 5, 0, 7, 0), (4,)))
        assert_same_moments(cybn.dask.moments(array).compute(), cybn.moments(x))
        none = array[array[:, 0] > 100]
        assert_same_moments(cybn.dask.moments(none).compute(), cybn.moments(x[:0]))
        assert_same_moments(cybn.dask.moments(array[:, :0]).compute(), cybn.moments(x[:, :0]))

    def test_far_from_0(self, rng):
        """Against sums of integers. The deviation is 1e-6 of the mean."""
        digits = rng.integers(0, 64, (4096, 3))
        array = da.from_array((digits + 2**22).astype(np.float32), chunks=(64, 2))
        actual = cybn.dask.moments(array).compute()
        n, sums, squares = len(digits), digits.sum(axis=0), (digits**2).sum(axis=0)
        assert_array_equal(actual.mean, 2**22 + sums / n)
        assert np.all(np.abs(actual.m2 * n / (n * squares - sums**2) - 1) < 1e-13)

    @all_chunks
    def test_bits_depend_on_chunks_and_split_every_alone(self, rng, name):
        _, axis, array = drawn(rng, name)
        once = cybn.dask.moments(array, axis).compute()
        for workers in 1, 2, 7:
            options = {"scheduler": "threads", "num_workers": workers}
            assert_same_bits(cybn.dask.moments(array, axis).compute(**options), once)
        with dask.config.set(split_every=2):
            of_config = cybn.dask.moments(array, axis).compute()
        assert_same_bits(of_config, cybn.dask.moments(array, axis, split_every=2).compute())

    @pytest.mark.parametrize("split_every", [2, 3, 4, 64, {0: 3}])
    def test_so_many_neighbours_are_merged_at_a_time(self, rng, split_every):
        """Along one axis. For powers of two that is how `Moments.merge` does it itself."""
        x = rng.normal(size=(100, 3))
        parts = [cybn.moments(part) for part in np.split(x, range(7, 100, 7))]
        merged = cybn.Moments.merge(parts)
        count = split_every if isinstance(split_every, int) else split_every[0]
        while len(parts) > 1:
            starts = range(0, len(parts), count)
            parts = [cybn.Moments.merge(parts[start : start + count]) for start in starts]
        array = da.from_array(x, chunks=(7, 3))
        assert_same_bits(cybn.dask.moments(array, split_every=split_every).compute(), parts[0])
        assert (parts[0].m2.tobytes() == merged.m2.tobytes()) == (count in (2, 4, 64))

    def test_chunks_are_made_once_and_late(self, rng):
        made = []

        def chunk(block_id):
            made.append(block_id)
            return np.full((2, 3), sum(block_id), np.float32)

        array = da.map_blocks(chunk, chunks=((2,) * 8, (3, 3)), meta=np.empty((0, 0), np.float32))
        lazy = cybn.dask.moments(array)
        assert not made
        mean, std = dask.compute(lazy.mean, lazy.std(ddof=1))
        assert sorted(made) == list(np.ndindex(8, 2))
        assert_array_equal(mean, [3.5] * 3 + [4.5] * 3)
        assert std.shape == (6,)

    def test_the_same_call_has_the_same_key(self, rng):
        _, axis, array = drawn(rng, "NCHW, all")
        key = cybn.dask.moments(array, axis).key
        assert cybn.dask.moments(array, axis).key == key
        others = [
            cybn.dask.moments(array + 1, axis),
            cybn.dask.moments(array, 0),
            cybn.dask.moments(array, axis, where=array > 9),
        ]
        assert len({key, *(other.key for other in others)}) == 4

    def test_a_chunk_takes_one_thread(self, rng, monkeypatch):
        counts = []

        def moments(x, axis, where):
            counts.append(cybn.get_num_threads())
            return cybn.moments(x, axis, where)

        monkeypatch.setattr(cybn.dask, "moments_of_array", moments)
        cybn.set_num_threads(2)
        cybn.dask.moments(da.ones((40, 2), chunks=(10, 2))).compute()
        assert counts == [1] * 4


class TestNormalize:
    @all_chunks
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("lazy", [False, True])
    def test_by_moments(self, rng, name, dtype, lazy):
        x, axis, array = drawn(rng, name, DTYPES[dtype])
        by = cybn.moments(rng.normal(8.0, 3.0, x.shape), axis)
        options = {"axis": axis, "ddof": 1, "eps": 0.25}
        y = cybn.dask.normalize(array, delayed(by) if lazy else by, **options)
        expected = by.standardize(x, **options)
        assert y.chunks == array.chunks
        assert y.dtype == y._meta.dtype == expected.dtype
        assert y.compute().tobytes() == expected.tobytes()

    def test_by_its_own_moments(self, rng):
        x, _, array = drawn(rng, "NCHW, all", np.float64)
        y = cybn.dask.normalize(array, cybn.dask.moments(array))
        expected = cybn.moments(x).standardize(x)
        assert np.abs(y.compute() - expected).max() < 100 * TOLERANCE

    @pytest.mark.parametrize("name", [name for name in CHUNKED if CHUNKED[name][1] in (1, -1)])
    @pytest.mark.parametrize("layer", [cybn.BatchNorm, cybn.InstanceNorm])
    @pytest.mark.parametrize("affine", [False, True])
    @pytest.mark.parametrize("unknown", [False, True])
    def test_by_a_layer(self, rng, name, layer, affine, unknown):
        x, axis, array = drawn(rng, name)
        bn = layer(x.shape[axis], axis=axis, affine=affine, track_running_stats=True, eps=0.1)
        bn.activation = "relu"
        bn.running_mean[:] = rng.normal(9.0, 1.0, bn.num_features)
        bn.running_var[:] = rng.random(bn.num_features) + 1.0
        if affine:
            bn.gamma[:], bn.beta[:] = rng.normal(size=(2, bn.num_features))
        y = cybn.dask.normalize(with_unknown_lengths(array) if unknown else array, bn)
        assert y.dtype == np.float32
        expected = bn(x, training=False)
        bn.running_mean += 1  # the result is that of the layer as it was
        assert bn.training
        assert y.compute().tobytes() == expected.tobytes()

    def test_empty_chunks(self, rng):
        x = rng.normal(size=(12, 4))
        array = da.from_array(x, chunks=((0, 5, 0, 7), (2, 0, 2)))
        by = cybn.moments(x)
        assert_array_equal(cybn.dask.normalize(array, by).compute(), by.standardize(x))

    def test_unknown_lengths_of_channels(self, rng):
        x, _, array = drawn(rng, "channels first")
        unknown, by = with_unknown_lengths(array), cybn.moments(x, 0)
        with refused(ValueError, "array", r"compute_chunk_sizes"):
            cybn.dask.normalize(unknown, by, axis=0)
        y = cybn.dask.normalize(unknown.compute_chunk_sizes(), by, axis=0)
        assert_array_equal(y.compute(), by.standardize(x, axis=0))
        one = with_unknown_lengths(da.from_array(x))
        assert_array_equal(cybn.dask.normalize(one, by, axis=0).compute(), y.compute())


class TestErrors:
    @pytest.mark.parametrize("call", [cybn.dask.moments, cybn.dask.normalize])
    @pytest.mark.parametrize(
        ("array", "remedy"),
        [
            (np.ones((3, 2)), r"from_array\(array\)"),
            ([[1.0]], r"from_array\(array\)"),
            (da.ma.masked_greater(da.ones((3, 2)), 2), r"where=~da\.ma\.getmaskarray\(array\)"),
            (da.ones((3, 2), dtype=complex), "complex128"),
            (da.ones((3, 2)).astype(object), "object"),
        ],
        ids=["NumPy", "list", "masked", "complex", "objects"],
    )
    def test_what_is_no_dask_array_of_numbers(self, call, array, remedy):
        by = [cybn.moments(np.ones((3, 2)))] if call is cybn.dask.normalize else []
        with refused(TypeError, "array", remedy):
            call(array, *by)

    def test_dataframes_and_arrays_with_names(self):
        class DataFrame:
            def to_dask_array(self): ...

        class DataArray:
            data = da.ones((3, 2))

        for value, remedy in (DataFrame(), "to_dask_array"), (DataArray(), r"array\.data"):
            with refused(TypeError, "array", remedy):
                cybn.dask.moments(value)

    @pytest.mark.parametrize(
        ("axis", "error"),
        [(2, ValueError), (-3, ValueError), ((1, 0), ValueError), (1.0, TypeError)],
    )
    def test_axis(self, axis, error):
        array = da.ones((3, 2), chunks=2)
        with refused(error, "axis"):
            cybn.dask.moments(array, axis)
        with refused(error, "axis"):
            cybn.dask.normalize(array, cybn.moments(np.ones((3, 2))), axis=axis)

    @pytest.mark.parametrize("shape", [(3,), (4, 1), (3, 2, 1), (2, 2)])
    def test_shape_of_a_mask(self, shape):
        with refused(ValueError, "where"):
            cybn.dask.moments(da.ones((3, 3)), where=np.ones(shape, bool))

    def test_masks_of_numbers_and_of_other_unknown_lengths(self):
        array = da.ones((6, 2), chunks=2)
        with refused(TypeError, "where", "where != 0"):
            cybn.dask.moments(array, where=da.ones((6, 2)))
        unknown = with_unknown_lengths(array)
        with refused(ValueError, "where"):
            cybn.dask.moments(unknown, where=da.ones((6, 2), dtype=bool, chunks=3))

    @pytest.mark.parametrize("by", [cybn.LayerNorm(2), cybn.GroupNorm(1, 2), None, 1.0])
    def test_what_normalizes(self, by):
        with refused(TypeError, "by", "map_blocks"):
            cybn.dask.normalize(da.ones((3, 2)), by)

    def test_layers(self):
        array = da.ones((3, 2))
        with refused(ValueError, "by", "track_running_stats=True"):
            cybn.dask.normalize(array, cybn.BatchNorm(2, track_running_stats=False))
        with refused(ValueError, "array"):
            cybn.dask.normalize(array, cybn.BatchNorm(3))
        for option in {"axis": 1}, {"ddof": 1}, {"eps": 1e-5}:
            with pytest.raises(TypeError, match="layer"):
                cybn.dask.normalize(array, cybn.BatchNorm(2), **option)

    def test_moments_of_other_channels(self):
        array, by = da.ones((3, 4), chunks=2), cybn.moments(np.ones((3, 5)))
        with refused(ValueError, "array"):
            cybn.dask.normalize(array, by)
        with refused(ValueError, "array"):
            cybn.dask.normalize(array, delayed(by)).compute()
        with refused(TypeError, "by"):
            cybn.dask.normalize(array, delayed(1)).compute()

    def test_channels_of_unequal_lengths(self):
        """Chunks that are not what the array says."""
        parts = [da.from_delayed(delayed(np.ones)((n, 1)), (np.nan, 1), float) for n in (2, 3)]
        array = da.concatenate(parts, axis=1, allow_unknown_chunksizes=True)
        with refused(ValueError, "array", "as many values"):
            cybn.dask.moments(array).compute()

    def test_without_dask_the_error_says_what_to_install(self):
        code = "import sys; sys.modules['dask'] = None; import cybn; import cybn.dask"
        process = run_python_unchecked("-c", code)
        assert process.returncode == 1
        *_, said = process.stderr.splitlines()
        assert said.startswith("ImportError: cybn.dask:")
        assert 'pip install "cybn[dask]"' in said


def statistic(name):
    """Return `mean`, `var` or `std` with the signature of Dask's own, from moments."""

    def reduction(array, axis=None, keepdims=False, split_every=None):
        array = da.asarray(array)
        axes = range(array.ndim) if axis is None else np.atleast_1d(np.array(axis, int))
        reduced = sorted({int(each) % array.ndim for each in axes})
        kept = [each for each in range(array.ndim) if each not in reduced]
        ordered = array.transpose([*kept, *reduced])[None]  # so that there always is a channel
        if isinstance(split_every, dict):
            split_every = {ordered.ndim - 1: 2} if len(reduced) == 1 else {1: 2, 2: 2}
        lazy = cybn.dask.moments(ordered, tuple(range(1 + len(kept))), split_every=split_every)
        value = lazy.mean if name == "mean" else getattr(lazy, name)(pure=True)
        shape = (1, *(array.shape[each] for each in kept))
        whole = tuple(1 if each in reduced else array.shape[each] for each in range(array.ndim))
        result = da.from_delayed(value, shape, float)[0]
        return result.reshape(whole) if keepdims else result

    return reduction


@pytest.mark.parametrize("name", ["mean", "var", "std"])
class TestReductionsOfDask:
    """Dask's tests of its own `mean`, `var` and `std`, without those of the dtype of results."""

    @pytest.mark.parametrize("dtype", ["f8", "i4"])
    @pytest.mark.parametrize("chunks", [(2,), (7,), ((4, 2, 4),), ((0, 4, 6, 0),)])
    def test_1d(self, name, dtype, chunks):
        x = np.arange(10).astype(dtype)
        of_dask.reduction_1d_test(
            statistic(name), da.from_array(x, chunks=chunks), getattr(np, name), x, False
        )

    @pytest.mark.parametrize("dtype", ["f8", "i4"])
    @pytest.mark.parametrize("chunks", [(7, 7), (2, 3), ((1, 2, 1), (5, 0, 7))])
    def test_2d(self, name, dtype, chunks):
        x = np.arange(1, 49).reshape(4, 12).astype(dtype)
        of_dask.reduction_2d_test(
            statistic(name), da.from_array(x, chunks=chunks), getattr(np, name), x, False
        )
