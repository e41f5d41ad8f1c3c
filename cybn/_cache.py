"""What a norm keeps for backward, and what backward returns."""

import math
from types import GenericAlias
from typing import NamedTuple

import numpy as np

from ._runtime import kernels


class _Gradients(NamedTuple):
    dx: np.ndarray
    dgamma: np.ndarray | None
    dbeta: np.ndarray | None


class Gradients(_Gradients):
    """Gradients of a loss, as `backward` returns them: the named tuple ``(dx, dgamma, dbeta)``.

    Attributes
    ----------
    dx : numpy.ndarray
        The gradient with respect to x. It has x's shape and dtype.
    dgamma, dbeta : numpy.ndarray or None
        The gradients with respect to gamma and beta. Each has the shape and dtype of its parameter,
        and is None if there was no such parameter.
    dresidual : numpy.ndarray or None
        The gradient with respect to the residual. It has the residual's shape and dtype, and is
        None if there was no residual. It is not one of the tuple's three members.
    """

    dresidual = None


class Cache:
    """What a norm keeps for `backward`.

    Attributes
    ----------
    x : numpy.ndarray or None
        The input itself, or a copy if it had to be converted. None if the result was stored in x
        (``out=x``).
    mean, var, invstd : numpy.ndarray
        The mean and the (biased) variance that x was normalized with, and ``1 / sqrt(var + eps)``,
        in float64. Their shape is (C,) in batch norm, (N, C) in instance norm, (N, groups) in group
        norm, and that of x without the normalized axes in layer norm. In RMS norm, the mean is 0
        and the variance is the mean square.
    count : int or numpy.ndarray
        How many values of x each mean was taken over. With a mask, an int64 array: how many the
        mask selects in each channel.
    training : bool
        Whether mean and variance were taken from x, and not from running statistics.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> _, cache = cybn.batch_norm(np.array([[1.0], [3.0]]))
    >>> cache.mean, cache.var
    (array([2.]), array([1.]))
    """

    __slots__ = ("_arrays", "_geometry", "_group", "_residual_dtype", "_settings", "count", "x")

    def __init__(self, x, arrays, geometry, settings, count):
        self.x = x
        self.count = count
        self._arrays = arrays.kept()
        self._geometry = geometry
        self._settings = settings
        self._group = None  # that mean and variance were taken over

    __class_getitem__ = classmethod(GenericAlias)  # Cache[np.float32], in annotations

    training = property(lambda self: self._settings.training)
    mean = property(lambda self: self._statistic(kernels.MEAN))
    var = property(lambda self: self._statistic(kernels.VAR))
    invstd = property(lambda self: self._statistic(kernels.INVSTD))

    def _statistic(self, row):
        geometry = self._geometry
        if geometry.layout is None:  # x is empty
            return np.full(geometry.statistics, np.nan)
        start, stop = row * geometry.cells, (row + 1) * geometry.cells
        values = self._arrays.saved[start : stop : geometry.group]
        return values[: math.prod(geometry.statistics)].reshape(geometry.statistics)

    def __repr__(self):
        shape = None if self.x is None else self.x.shape
        return f"Cache(x={shape}, statistics={self._geometry.statistics}, training={self.training})"
