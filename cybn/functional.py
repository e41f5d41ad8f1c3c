"""Batch normalization as functions: forward and backward."""

import math
from typing import NamedTuple

import numpy as np
from numpy import empty  # a look-up less in each small call

from ._checks import check_settings
from ._geometry import (
    as_flat,
    as_input,
    as_mask,
    as_parameter,
    batch_geometry,
    check_out,
    check_running,
    check_written,
    commit,
    has_rows,
    is_plain,
)
from ._memory import empty_like
from ._runtime import kernels, schedule

OVERWRITTEN = kernels.OVERWRITTEN


class Gradients(NamedTuple):
    """Gradients of a loss, as `backward` returns them.

    Attributes
    ----------
    dx : numpy.ndarray
        With respect to x, of its shape and dtype.
    dgamma, dbeta : numpy.ndarray or None
        With respect to gamma and beta, of their shape and dtype; None where there was none.
    """

    dx: np.ndarray
    dgamma: np.ndarray | None
    dbeta: np.ndarray | None


class Cache:
    """What a norm keeps for `backward`.

    Attributes
    ----------
    x : numpy.ndarray or None
        The input itself, not a copy, unless it had to be converted; None after ``out=x``.
    mean, var, invstd : numpy.ndarray
        float64: the mean and the (biased) variance that normalized x, and ``1 / sqrt(var + eps)``,
        one for each statistic: of shape (C,) in batch norm, (N, C) in instance norm, (N, groups)
        in group norm, and x's shape without the normalized axes in layer norm. In RMS norm the mean
        is 0 and the variance is the mean square.
    count : int or numpy.ndarray
        Values of a statistic in x; with a mask an array of int64, those selected of each channel.
    training : bool
        Whether mean and variance are those of x.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> _, cache = cybn.forward(np.array([[1.0], [3.0]]))
    >>> cache.mean, cache.var
    (array([2.]), array([1.]))
    """

    __slots__ = (
        *("_beta", "_centered", "_counts", "_gamma", "_geometry", "_saved", "_where"),
        *("count", "training", "x"),
    )

    def __init__(self, x, geometry, saved, gamma, beta, training, centered, where, counts, count):
        self.x = x
        self.training = training
        self.count = count
        self._where = where
        self._counts = counts
        self._geometry = geometry
        self._saved = saved
        self._centered = centered
        self._gamma = gamma
        self._beta = beta

    mean = property(lambda self: self._statistic(kernels.MEAN))
    var = property(lambda self: self._statistic(kernels.VAR))
    invstd = property(lambda self: self._statistic(kernels.INVSTD))

    def _statistic(self, row):
        geometry = self._geometry
        if geometry.layout is None:  # x is empty
            return np.full(geometry.statistics, np.nan)
        start, stop = row * geometry.cells, (row + 1) * geometry.cells
        values = self._saved[start : stop : geometry.group]
        return values[: math.prod(geometry.statistics)].reshape(geometry.statistics)

    def __repr__(self):
        shape = None if self.x is None else self.x.shape
        return f"Cache(x={shape}, statistics={self._geometry.statistics}, training={self.training})"


def forward(
    x,
    gamma=None,
    beta=None,
    running_mean=None,
    running_var=None,
    *,
    training=True,
    momentum=0.1,
    eps=1e-5,
    axis=1,
    where=None,
    out=None,
):
    """Normalize `x` over all axes but one, then scale by gamma and shift by beta.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, where mean and (biased) variance are those
    of each channel in `x` while training [1]_, and the running averages otherwise.

    Parameters
    ----------
    x : array_like
        float32 or float64, at least 1 dimension. Integers and bool are converted as
        ``np.result_type(x, np.float32)`` does.
    gamma, beta : array_like, optional
        float32 or float64, shape (C,). None means 1 and 0. Of shape (N, C) they have a row for each
        sample (axis 0), as in conditional batch normalization [2]_.
    running_mean, running_var : numpy.ndarray, optional
        float32 or float64, shape (C,); both or neither. Training updates them in place:
        ``new = (1 - momentum) * old + momentum * batch``, with the unbiased variance, as PyTorch
        does. Inference uses them.
    training : bool
        Normalize with the statistics of `x`, which then needs two values a channel or more.
    momentum : float
        From 0 to 1, the weight of the new value.
    eps : float
        Finite and > 0, added to the variance.
    axis : int or tuple of int
        The channel axis, from ``-x.ndim`` to ``x.ndim - 1``, or adjacent axes in order: then "(C,)"
        is their shape, as (T, F) where ``axis=(1, 2)`` of (N, T, F).
    where : array_like of bool, optional
        The values that count. It broadcasts against `x`, of length 1 on the channel axis (with
        several, on any of them or none). All else is not read, and is 0 in `y` and dx. The cache
        has a copy of it.
    out : numpy.ndarray, optional
        Receives `y`: x's shape and dtype, C-contiguous, writable. It may be `x` itself in
        inference, or another view of all of it, after which `backward` cannot use the cache.

    Returns
    -------
    y : numpy.ndarray
        x's shape and (converted) dtype, in C order. Each float32 value is the one nearest to the
        exact result.
    cache : Cache
        For `backward`. It refers to `x`: do not change `x` in between.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, before any array is changed.

    Notes
    -----
    An empty `x`, or one of which `where` selects nothing, changes no running average. A NaN or an
    infinity makes its own channel NaN, no other.

    References
    ----------
    .. [1] S. Ioffe, C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by
       Reducing Internal Covariate Shift", ICML 2015.
    .. [2] H. de Vries et al., "Modulating early visual processing by language", NeurIPS 2017.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]], dtype=np.float32)
    >>> y, cache = cybn.forward(x, gamma=np.ones(2), beta=np.zeros(2))
    >>> y.round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    """
    return batch_norm(
        x, gamma, beta, running_mean, running_var, training, momentum, eps, axis, where, out
    )


def batch_norm(
    x,
    gamma,
    beta,
    running_mean,
    running_var,
    training,
    momentum,
    eps,
    axis,
    where,
    out,
    counters=None,
):
    """As `forward`; for a layer, `counters` says what else changes with the running arrays.

    It is a function of the number of values, which returns an object and new values of its
    attributes, or None.
    """
    given = x
    if not is_plain(x):
        x = as_input(x, "x")
    geometry = batch_geometry(x.shape, axis)
    momentum, eps = check_settings(training, momentum, eps)
    mask = None if where is None else (*as_mask(where, x.shape, axis), where)
    if training and geometry.values == 1 and x.size:
        raise ValueError(f"x: expected more than 1 value per channel when training, got {x.shape}")
    if training and mask is not None and (mask[2] == 1).any():
        raise ValueError("where: expected more than 1 value per channel when training, got 1")
    if not training and running_mean is None and running_var is None:
        raise ValueError("running_mean: expected an array because training=False, got None")
    return normalize(
        given,
        x,
        geometry,
        gamma,
        beta,
        running_mean,
        running_var,
        training,
        momentum,
        eps,
        out,
        mask,
        counters,
    )


def normalize(
    given,
    x,
    geometry,
    gamma=None,
    beta=None,
    running_mean=None,
    running_var=None,
    training=True,
    momentum=0.0,
    eps=1e-5,
    out=None,
    mask=None,
    counters=None,
    *,
    centered=True,
):
    """Normalize in any geometry; return y and the Cache.

    `given` is what `x` was converted from, `mask` what `as_mask` returns, and from what, or None.
    RMS norm is not `centered`.
    """
    y = empty_like(x) if out is None else out
    saved = empty(geometry.saved_size)
    scratch = _scratch(geometry) if geometry.scratch_size else None
    where = counts = None
    count = geometry.values
    direct = geometry.direct and given is x
    if mask is not None:
        where, counts, count, _ = mask
        direct = False
    if counters is not None:
        counters = counters(count)
    way = schedule(2 * x.nbytes)
    # The kernel takes the usual arrays as they are; it refuses what is to be converted or is wrong.
    arrays = x, y, where, counts, gamma, beta, running_mean, running_var, saved, scratch
    taken = direct and kernels.forward(
        arrays, geometry.layout, training, centered, momentum, eps, way, counters
    )
    if not taken:
        if geometry.per_sample and has_rows(gamma, beta, geometry):
            geometry = geometry.per_sample
            saved, scratch = empty(geometry.saved_size), _scratch(geometry)
        gamma = as_parameter(gamma, "gamma", geometry.parameters)
        beta = as_parameter(beta, "beta", geometry.parameters)
        running = running_mean, running_var
        _check_forward_memory(given, x, y, mask, gamma, beta, *running, geometry, training)
        if x.size:
            flat = [as_flat(array, copy=training) for array in running]
            arrays = x, np.asarray(y), where, counts, gamma, beta, *flat, saved, scratch
            settings = training, centered, momentum, eps, way
            taken = _insist(kernels.forward(arrays, geometry.layout, *settings))
            if training and running_mean is not None:
                commit(zip(running, flat, strict=True), *([counters] if counters else []))
    kept = None if taken is OVERWRITTEN else x
    return y, Cache(kept, geometry, saved, gamma, beta, training, centered, where, counts, count)


def statistics(x, axis, where):
    """Return the Cache of `forward` without its y: the statistics of each channel."""
    x = as_input(x, "x")
    geometry = batch_geometry(x.shape, axis)
    selected = (None, None, geometry.values) if where is None else as_mask(where, x.shape, axis)[:3]
    saved = empty(geometry.saved_size)
    if x.size:
        arrays = x, None, *selected[:2], *[None] * 4, saved, _scratch(geometry)
        settings = True, True, 0.0, 1.0, schedule(x.nbytes)
        _insist(kernels.forward(arrays, geometry.layout, *settings))
    return Cache(x, geometry, saved, None, None, True, True, *selected)


def _scratch(geometry):
    """Return an array for what the kernels need while they run, None where a thread has it."""
    return empty(geometry.scratch_size) if geometry.scratch_size else None


def _insist(taken):
    """Never hand out a result that no kernel has written."""
    if not taken:
        raise RuntimeError("cybn: a kernel refused arrays that were checked; please report this")
    return taken


def _check_forward_memory(
    given, x, y, mask, gamma, beta, running_mean, running_var, geometry, training
):
    source = given if isinstance(given, np.ndarray) else x
    where = None if mask is None else mask[3]
    read = {"x": source, "where": where, "gamma": gamma, "beta": beta}
    running = {"running_mean": running_mean, "running_var": running_var}
    check_running(running_mean, running_var, geometry.statistics, read if training else None)
    check_out(y, x)
    check_written({"out": y}, read | running, may_be=None if training else given)


def backward(dy, cache, *, out=None):
    """Return the gradients of a loss, given its gradient with respect to `y`.

    Through training, with ``xhat = (x - mean) * invstd`` and n values a channel [1]_::

        dbeta = sum(dy)
        dgamma = sum(dy * xhat)
        dx = gamma * invstd * (dy - dbeta / n - xhat * dgamma / n)

    Through inference, mean and variance are constants, and ``dx = gamma * invstd * dy``.

    Parameters
    ----------
    dy : array_like
        x's shape; converted to x's dtype.
    cache : Cache
        From `forward`. Neither x nor the cache may have been changed since.
    out : numpy.ndarray, optional
        Receives `dx`: x's shape and dtype, C-contiguous, writable. It may be `dy` itself, or
        another view of all of it.

    Returns
    -------
    Gradients
        The named tuple ``(dx, dgamma, dbeta)``.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, before any array is changed.

    References
    ----------
    .. [1] S. Ioffe, C. Szegedy, ICML 2015, section 3.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> y, cache = cybn.forward(np.array([[1.0], [2.0], [6.0]]), gamma=np.ones(1))
    >>> dx, dgamma, dbeta = cybn.backward(np.array([[1.0], [0.0], [0.0]]), cache)
    >>> dx.round(3)
    array([[ 0.176],
           [-0.22 ],
           [ 0.044]])
    >>> dgamma.round(3), dbeta
    (array([-0.926]), None)
    """
    if not isinstance(cache, Cache):
        raise TypeError(f"cache: expected a Cache from forward, got {type(cache).__name__}")
    x, geometry = cache.x, cache._geometry
    if x is None:
        raise ValueError("cache: expected one that holds x, got that of a call with out=x")
    dx = empty_like(x) if out is None else out
    shape = geometry.parameters
    flat = shape if len(shape) == 1 else math.prod(shape)
    dgamma = None if cache._gamma is None else empty(flat, cache._gamma.dtype)
    dbeta = None if cache._beta is None else empty(flat, cache._beta.dtype)
    scratch = _scratch(geometry) if geometry.scratch_size else None
    arrays = dy, x, dx, cache._where, cache._counts, dgamma, dbeta, cache._saved, scratch
    settings = cache.training, cache._centered, schedule(3 * x.nbytes)
    if not x.size or not kernels.backward(arrays, geometry.layout, *settings):
        given, dy = dy, as_input(dy, "dy", x)
        source = given if isinstance(given, np.ndarray) else dy
        if not is_plain(x) or x.size != math.prod(geometry.statistics) * geometry.values:
            raise ValueError("cache: expected one that has not been changed, got another x")
        check_out(dx, x)
        read = {"dy": source, "cache.x": x, "cache.where": cache._where, "cache": cache._saved}
        check_written({"out": dx}, read, may_be=given)
        if x.size:
            arrays = dy, x, np.asarray(dx), *arrays[3:]
            _insist(kernels.backward(arrays, geometry.layout, *settings))
        else:
            for gradient in (dgamma, dbeta):
                if gradient is not None:
                    gradient.fill(0)
    if len(shape) != 1:
        dgamma, dbeta = (None if each is None else each.reshape(shape) for each in (dgamma, dbeta))
    return Gradients(dx, dgamma, dbeta)
