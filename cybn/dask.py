"""Statistics and inference of Dask arrays, chunk by chunk: ``cybn[dask]``."""

from functools import partial
from itertools import accumulate, pairwise
from operator import attrgetter

import numpy as np

from ._functional import batch_norm
from ._geometry import as_input, channel_axes
from ._layer import TrackingLayer
from ._moments import Moments, standardize
from ._moments import moments as moments_of_array
from ._runtime import num_threads

try:
    import dask.array as da
    from dask.delayed import Delayed, delayed
except ImportError as error:
    raise ImportError(
        'cybn.dask: expected dask.array 2024.8 or later: python -m pip install "cybn[dask]"'
    ) from error

__all__ = ["moments", "normalize"]  # others without an underscore are names of tasks


def moments(array, axis=1, where=None, *, split_every=None):
    """Return the `cybn.Moments` of each channel of a Dask array, lazily.

    Each chunk's moments are computed where the chunk is, in one pass, and merged in a tree. Nothing
    but moments travels between workers, and no more memory is needed than for the chunks that are
    at work.

    Parameters
    ----------
    array : dask.array.Array
        Chunked along any axes, those of the channels too; of any dtype that `cybn.batch_norm`
        takes. Chunk sizes may be unknown (NaN), and chunks may be empty.
    axis : int or tuple of int
        The channel axis, or several adjacent ones.
    where : dask.array.Array or array_like of bool, optional
        The values that count, as in `cybn.moments`. It is rechunked as the array is. Where lengths
        are unknown, it has as many chunks, as ``~dask.array.isnan(array)`` has.
    split_every : int or dict, optional
        How many moments are merged at a time, as in Dask's own reductions: in all, or for each axis
        that is reduced. The default is 4, or what Dask's configuration says.

    Returns
    -------
    dask.delayed.Delayed
        Its ``compute()`` returns the `cybn.Moments`. What it returns for their attributes and
        methods is lazy, too: ``moments(array).std().compute()`` is the standard deviation.

    Raises
    ------
    TypeError, ValueError
        Naming the argument. What only the values of a chunk can show is raised when it is computed.

    See Also
    --------
    normalize : Standardize an array by these moments.
    cybn.moments : The same for a NumPy array.

    Notes
    -----
    The bits depend on the array's chunks and on `split_every`, which fix the tree. They do not
    depend on the scheduler, on the number of workers, or on which of them is first. `cybn.moments`
    says how much the moments of parts, merged, can differ from those of the whole.

    Each chunk is computed on one thread, since Dask works on several chunks at a time.

    Examples
    --------
    >>> import cybn.dask, dask.array as da
    >>> images = da.random.default_rng(0).normal(5, 2, (100, 3, 64, 64), chunks=(10, 3, 64, 32))
    >>> lazy = cybn.dask.moments(images)
    >>> total = lazy.compute()
    >>> total.count
    409600
    >>> total.std().round(1)
    array([2., 2., 2.])

    Other results that need the same pass, in one computation:

    >>> import dask
    >>> mean, std = dask.compute(lazy.mean, lazy.std())
    """
    start, stop = _checked_axes(array, axis)
    masked = where is not None
    parts = da.map_blocks(
        moments_of_chunk,
        *([array, _as_mask(where, array, start, stop)] if masked else [array]),
        channels=tuple(range(start, stop)),
        meta=np.empty((0,) * array.ndim, object),
    )
    totals = da.reduction(
        parts,
        chunk=_as_it_is,
        aggregate=_merge,
        axis=(*range(start), *range(stop, array.ndim)),
        dtype=object,
        split_every=split_every,
        name="moments",
        concatenate=False,
        meta=np.empty((0,) * (stop - start), object),
    ).to_delayed()
    if totals.size == 1:
        return totals.item()
    return delayed(_concatenate, pure=True)(totals.tolist(), masked)


def moments_of_chunk(x, where=None, *, channels):
    with num_threads(1):
        return moments_of_array(x, channels, where)


def _as_it_is(part, axis, keepdims):
    return part


def _merge(parts, axis, keepdims):
    """Return the Moments of all in nested lists, which Dask makes of neighbouring chunks."""
    leaves = []
    _nested(leaves.append, parts)
    return Moments.merge(leaves)


def _concatenate(parts, masked):
    """Return the Moments of all channels from those of their chunks, in nested lists."""
    count, mean, m2 = (
        np.block(_nested(get, parts)) for get in (_counts, attrgetter("mean"), attrgetter("m2"))
    )
    if masked:
        return Moments(count, mean, m2)
    most = count.max(initial=0)
    if np.any(count != most):
        raise ValueError(f"array: expected as many values in all channels, got {np.unique(count)}")
    return Moments(int(most), mean, m2)


def _nested(function, parts):
    if isinstance(parts, list):
        return [_nested(function, part) for part in parts]
    return function(parts)


def _counts(part):
    return np.broadcast_to(part.count, part.mean.shape)


def normalize(array, by, *, axis=None, ddof=0, eps=0.0):
    """Return a Dask array that is normalized by known statistics, lazily, chunk by chunk.

    Parameters
    ----------
    array : dask.array.Array
        Chunked along any axes, those of the channels too; of any dtype that `cybn.batch_norm`
        takes. Chunks may be empty, and their sizes unknown (NaN), but for those of channels in
        several chunks.
    by : cybn.BatchNorm, cybn.InstanceNorm, cybn.Moments or dask.delayed.Delayed
        A layer with running statistics gives its inference, whatever its mode, with its parameters
        as they are now. Moments, or what `moments` returned, give `cybn.Moments.standardize`.
    axis : int or tuple of int, optional
        With moments: the channels', 1 by default.
    ddof : int
        With moments: 0 divides by the deviation of the values, 1 by an estimate from a sample.
    eps : float
        With moments: finite and >= 0, added to the variance.

    Returns
    -------
    dask.array.Array
        The array's shape and chunks, and its (converted) dtype.

    Raises
    ------
    TypeError, ValueError
        Naming the argument. What only the values of a chunk can show, or moments that are not yet
        computed, is raised when it is computed.

    See Also
    --------
    moments : Statistics of a Dask array.

    Notes
    -----
    The bits do not depend on the chunks. With moments of the same array that are not yet computed,
    Dask makes or loads each chunk twice. Call ``array.persist()`` before if it fits into memory.

    Each chunk is computed on one thread, since Dask works on several chunks at a time.

    Examples
    --------
    >>> import cybn.dask, dask.array as da
    >>> x = da.random.default_rng(0).normal(5, 2, (100, 4), chunks=(10, 2))
    >>> y = cybn.dask.normalize(x, cybn.dask.moments(x))
    >>> y.shape, y.dtype, y.chunksize
    ((100, 4), dtype('float64'), (10, 2))
    >>> y.std(axis=0).compute().round(6)
    array([1., 1., 1., 1.])
    """
    make, function, axis = _way(by, axis, ddof, eps)
    start, stop = _checked_axes(array, axis)
    if isinstance(by, Delayed):
        make = delayed(make, pure=True)
    arrays = make(by, array.shape[start:stop])
    return array.map_blocks(
        normalize_chunk,
        arrays=delayed(arrays, traverse=False, pure=True),
        function=function,
        slices=[_slices(i, array.chunks[i]) for i in range(start, stop)],
        start=start,
        meta=as_input(array._meta, "array"),
    )


def _way(by, axis, ddof, eps):
    """Return what makes arrays of statistics of `by`, what normalizes a chunk by them, and axis."""
    if isinstance(by, TrackingLayer):
        if (axis, ddof, eps) != (None, 0, 0.0):
            raise TypeError("axis, ddof, eps: expected none of them, since `by` is a layer")
        options = {"axis": by.axis, "eps": by.eps, "activation": by.activation}
        return _of_layer, partial(_infer, **options), by.axis
    if isinstance(by, Moments | Delayed):
        axis = 1 if axis is None else axis
        return partial(_of_moments, ddof=ddof, eps=eps), partial(standardize, axis=axis), axis
    raise TypeError(
        "by: expected a layer with running statistics, or moments, got "
        f"{type(by).__name__}; another layer, which normalizes over axes that are not chunked, "
        "takes the chunks as they are: array.map_blocks(layer.eval())"
    )


def _of_layer(layer, channels):
    """Return copies of gamma, beta, running mean and variance."""
    if not layer.track_running_stats:
        raise ValueError("by: expected a layer with track_running_stats=True, got False")
    _check_channels((layer.num_features,), channels)
    names = "gamma", "beta", "running_mean", "running_var"
    arrays = [getattr(layer, name) for name in names]
    return [None if array is None else np.array(array) for array in arrays]


def _infer(x, gamma, beta, mean, var, **options):
    running = {"running_mean": mean, "running_var": var}
    return batch_norm(x, gamma, beta, **running, training=False, **options)[0]


def _of_moments(moments, channels, ddof, eps):
    """Return mean and scale."""
    if not isinstance(moments, Moments):
        raise TypeError(f"by: expected Moments to be computed, got {type(moments).__name__}")
    _check_channels(moments.mean.shape, channels)
    return [moments.mean, moments.scale(ddof, eps)]


def _check_channels(shape, channels):
    """Raise unless statistics have the shape of the channels, whose lengths may be unknown."""
    lengths = zip(shape, channels, strict=False)
    if len(shape) != len(channels) or any(a != b and b == b for a, b in lengths):
        raise ValueError(f"array: expected channels of shape {shape}, as `by` has, got {channels}")


def _slices(axis, sizes):
    """Return where in the statistics the chunks along an axis of the channels are."""
    if len(sizes) == 1:
        return [slice(None)]
    if np.isnan(sizes).any():
        raise ValueError(
            f"array: expected known chunk sizes of the channels on axis {axis}, got {sizes}; call "
            "array.compute_chunk_sizes() first"
        )
    return [slice(*ends) for ends in pairwise(accumulate(sizes, initial=0))]


def normalize_chunk(x, arrays, function, slices, start, block_id):
    here = tuple(each[i] for each, i in zip(slices, block_id[start:], strict=False))
    with num_threads(1):
        return function(x, *(None if array is None else array[here] for array in arrays))


def _checked_axes(array, axis):
    """Return where the axes of the channels start and stop; raise unless it is a Dask array."""
    if not isinstance(array, da.Array):
        if hasattr(array, "to_dask_array"):
            remedy = "array.to_dask_array()"
        elif isinstance(getattr(array, "data", None), da.Array):  # xarray's
            remedy = "array.data"
        else:
            remedy = "dask.array.from_array(array), or cybn itself for what is in memory"
        raise TypeError(f"array: expected a Dask array, got {type(array).__name__}; use {remedy}")
    if isinstance(array._meta, np.ma.MaskedArray):
        raise TypeError(
            "array: expected chunks without a mask, got MaskedArray; use da.ma.getdata(array), and "
            "perhaps where=~da.ma.getmaskarray(array)"
        )
    if type(array._meta) is not np.ndarray:
        raise TypeError(
            f"array: expected chunks that are NumPy arrays, got {type(array._meta).__name__}; use "
            "array.map_blocks(to_numpy, ...), with a function that converts a chunk"
        )
    as_input(array._meta, "array")
    return channel_axes(array.shape, axis)


def _as_mask(where, array, start, stop):
    """Return a mask as a Dask array of the array's chunks, but for axes of length 1."""
    where = da.asarray(where)
    if where.dtype != bool:
        raise TypeError(f"where: expected bool, got {where.dtype}; use where != 0")
    lead = array.ndim - where.ndim
    whole = where[(None,) * lead]
    # (N,) of (N, N) would be taken for a mask of the channels.
    fits = lead == 0 or (lead > 0 and whole.shape[start:stop] == (1,) * (stop - start))
    chunks = {}
    for axis, (length, expected) in enumerate(zip(whole.shape, array.shape, strict=False)):
        if length == expected:
            chunks[axis] = array.chunks[axis]
        elif length != 1:
            unknown = np.isnan([length, expected]).any()
            fits &= unknown and whole.numblocks[axis] == array.numblocks[axis]
    if not fits:
        raise ValueError(
            f"where: expected shape {array.shape}, with as many chunks where that is unknown, or "
            f"length 1 on some axes, got {where.shape}; use where[:, None] for an axis it lacks"
        )
    return whole.rechunk(chunks)
