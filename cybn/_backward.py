"""The gradients of every norm."""

import math

import numpy as np
from numpy import empty  # a look-up less in each small call

from ._cache import Cache, Gradients
from ._checks import insist
from ._geometry import as_input, as_residual, check_out, check_written, is_plain
from ._memory import empty_array, empty_like
from ._normalize import exchange_with
from ._runtime import kernels, schedule


def backward(dy, cache, *, out=None, residual_out=None):
    """Return the gradients of a loss, given its gradient with respect to `y`.

    In training, for a channel of n values, with ``xhat = (x - mean) * invstd`` [1]_::

        dbeta = sum(dy)
        dgamma = sum(dy * xhat)
        dx = gamma * invstd * (dy - dbeta / n - xhat * dgamma / n)

    In inference, mean and variance are constants, and ``dx = gamma * invstd * dy``.

    If the norm had an activation, `dy` is first multiplied by the activation's derivative. This
    product is also the gradient of the residual.

    Parameters
    ----------
    dy : array_like
        Gradient of the loss with respect to `y`, of the same shape. It is converted to x's dtype.
    cache : Cache
        What `batch_norm`, or another norm, returned together with `y`. Neither x nor the cache may
        have been changed since.
    out : numpy.ndarray, optional
        An array to store `dx` in, of x's shape and dtype, C-contiguous and writable. It may be `dy`
        itself, or another view of all of it.
    residual_out : numpy.ndarray, optional
        An array to store the residual's gradient in, of x's shape and the residual's dtype,
        C-contiguous and writable. It may be `dy` itself, if `out` is not.

    Returns
    -------
    Gradients
        The named tuple ``(dx, dgamma, dbeta)``. Its attribute `dresidual` is the gradient of the
        residual, or None if there was no residual.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. The message names it, and no array has been changed.

    References
    ----------
    .. [1] S. Ioffe, C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by
       Reducing Internal Covariate Shift", ICML 2015, section 3.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> y, cache = cybn.batch_norm(np.array([[1.0], [2.0], [6.0]]), gamma=np.ones(1))
    >>> dx, dgamma, dbeta = cybn.backward(np.array([[1.0], [0.0], [0.0]]), cache)
    >>> dx.round(3)
    array([[ 0.176],
           [-0.22 ],
           [ 0.044]])
    >>> dgamma.round(3), dbeta
    (array([-0.926]), None)
    """
    if not isinstance(cache, Cache):
        got = type(cache).__name__
        raise TypeError(f"cache: expected the Cache of a norm's call, got {got}; use (dy, cache)")
    exchange = None if cache._group is None else exchange_with(cache._group)
    try:
        return _gradients(dy, cache, out, residual_out, exchange)
    except Exception as error:
        if exchange is not None:
            exchange.fail(error)
        raise


def _gradients(dy, cache, out, residual_out, exchange):
    """As `backward`, together with the other members of a group, if there is an exchange."""
    x, geometry = cache.x, cache._geometry
    if x is None:
        raise ValueError("cache: expected one that holds x, got that of a call with out=x: omit it")
    nbytes = x.nbytes
    dx = empty_array(geometry.shape, x.dtype, nbytes) if out is None else out
    shape = geometry.parameters
    flat = shape if len(shape) == 1 else math.prod(shape)
    kept = cache._arrays
    gamma, beta = kept.gamma, kept.beta
    dgamma = None if gamma is None else empty(flat, gamma.dtype)
    dbeta = None if beta is None else empty(flat, beta.dtype)
    arrays = kept.again(x, dy, dx, dgamma, dbeta)
    if kept.third is not None or residual_out is not None:
        arrays.dresidual = _residual_out(cache, residual_out)
    if geometry.scratch_size:
        arrays.scratch = empty(geometry.scratch_size)
    how = geometry.layout, cache._settings, schedule(3 * nbytes)
    alone = exchange is None
    if not (alone and x.size and kernels.backward(*how, arrays)):
        _check(arrays, cache)
        if not alone:
            exchange.add(*how, arrays)
        if x.size:
            insist(kernels.backward(*how, arrays))
        else:
            for gradient in (dgamma, dbeta):
                if gradient is not None:
                    gradient.fill(0)
    if len(shape) != 1:  # each has that of its own parameter
        pairs = (dgamma, gamma), (dbeta, beta)
        dgamma, dbeta = (None if each is None else each.reshape(own.shape) for each, own in pairs)
    gradients = tuple.__new__(Gradients, (dx, dgamma, dbeta))  # a frame less, too
    if arrays.dresidual is not None:
        gradients.dresidual = arrays.dresidual if residual_out is None else residual_out
    return gradients


def _residual_out(cache, residual_out):
    """Return what receives the residual's gradient."""
    third = cache._arrays.third
    if third is None:
        raise ValueError(
            "residual_out: expected None, as there was no residual, "
            f"got {type(residual_out).__name__}"
        )
    if residual_out is None:
        return empty_like(third, cache._residual_dtype)
    # The kernels take either dtype that a residual may have.
    check_out(residual_out, cache.x, "residual_out", cache._residual_dtype)
    return residual_out


def _check(arrays, cache):
    """Convert dy, and raise if anything is wrong with the arrays of a call."""
    given, x, geometry = arrays.dy, arrays.x, cache._geometry
    arrays.dy = as_input(given, "dy", x)
    if not is_plain(x) or x.size != math.prod(geometry.statistics) * geometry.values:
        raise ValueError("cache: expected one that has not been changed, got another x")
    check_out(arrays.out, x)
    is_array = isinstance(given, np.ndarray)
    written = {"out": arrays.out}
    read = {
        "dy": given if is_array else arrays.dy,
        "cache.x": x,
        "cache.where": arrays.where,
        "cache": arrays.saved,
    }
    if arrays.third is not None:
        kept = "cache's residual or y"
        read[kept] = arrays.third
        arrays.third = as_residual(arrays.third, kept, x)
        written = {"out": arrays.out, "residual_out": arrays.dresidual}
    check_written(written, read, may_be="dy" if is_array else None)
    arrays.out = np.asarray(arrays.out)
    arrays.dresidual = None if arrays.dresidual is None else np.asarray(arrays.dresidual)
