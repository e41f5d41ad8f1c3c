"""The relatives of batch normalization: layer, RMS, instance and group norm, and weights."""

from ._checks import checked_int
from ._geometry import (
    as_input,
    batch_geometry,
    sample_geometry,
    trailing_geometry,
)
from ._normalize import Arrays, normalize
from ._settings import settings_of


def layer_norm(x, gamma=None, beta=None, *, axis=-1, eps=1e-5, out=None):
    """Normalize `x` over its trailing axes, then scale by gamma and shift by beta.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, with the mean and the (biased) variance
    over `axis` [1]_.

    Parameters
    ----------
    x : array_like
        Of any dtype that `batch_norm` takes.
    gamma, beta : array_like, optional
        Of the shape of the normalized axes, or as ``keepdims=True`` leaves it; of any of
        x's dtypes, and integers are converted as `x` is. None means 1 and 0.
    axis : int or tuple of int
        **What is reduced: the axes over which mean and variance are taken** (in `batch_norm` it is
        what is kept). The last axis, or several trailing ones in order.
    eps : float
        Finite and > 0, added to the variance.
    out : numpy.ndarray, optional
        An array to store `y` in, of x's shape and dtype, C-contiguous and writable. It must not
        overlap `x`.

    Returns
    -------
    y : numpy.ndarray
        x's shape and (converted) dtype, in C order.
    cache : Cache
        What `backward` needs. It refers to `x`, so do not change `x` before you call `backward`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. The message names it, and no array has been changed.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", arXiv:1607.06450, 2016.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> y, cache = cybn.layer_norm(np.array([[1.0, 3.0], [10.0, 30.0]]))
    >>> y.round(3)
    array([[-1.,  1.],
           [-1.,  1.]])
    >>> cache.mean
    array([ 2., 20.])
    """
    given, x = x, as_input(x, "x")
    geometry = trailing_geometry(x.shape, axis)
    return normalize(given, Arrays(x, out, gamma, beta), geometry, settings_of(eps=eps))


def rms_norm(x, gamma=None, *, axis=-1, eps=1e-5, out=None):
    """Divide `x` by its root mean square over its trailing axes, then scale by gamma.

    ``y = x / sqrt(mean(x**2) + eps) * gamma`` [1]_.

    Parameters
    ----------
    x : array_like
        Of any dtype that `batch_norm` takes.
    gamma : array_like, optional
        Of the shape of the normalized axes, or as ``keepdims=True`` leaves it; of any of
        x's dtypes, and integers are converted as `x` is. None means 1.
    axis : int or tuple of int
        **What is reduced: the axes over which the mean square is taken** (in `batch_norm` it is
        what is kept). The last axis, or several trailing ones in order.
    eps : float
        Finite and > 0, added to the mean square.
    out : numpy.ndarray, optional
        An array to store `y` in, of x's shape and dtype, C-contiguous and writable. It must not
        overlap `x`.

    Returns
    -------
    y : numpy.ndarray
        x's shape and (converted) dtype, in C order.
    cache : Cache
        What `backward` needs. Its mean is 0 and its var is the mean square. It refers to `x`, so do
        not change `x` before you call `backward`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. The message names it, and no array has been changed.

    References
    ----------
    .. [1] B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> y, cache = cybn.rms_norm(np.array([[1.0, 7.0], [3.0, 4.0]]))
    >>> y.round(3)
    array([[0.2  , 1.4  ],
           [0.849, 1.131]])
    """
    given, x = x, as_input(x, "x")
    geometry = trailing_geometry(x.shape, axis)
    settings = settings_of(eps=eps, centered=False)
    return normalize(given, Arrays(x, out, gamma, None), geometry, settings)


def instance_norm(
    x, gamma=None, beta=None, *, axis=1, eps=1e-5, activation=None, residual=None, out=None
):
    """Normalize every channel of every sample, then scale by gamma and shift by beta.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, with the mean and the (biased) variance of
    each sample and channel [1]_.

    Parameters
    ----------
    x : array_like
        At least 2 dimensions, with the samples on axis 0; of any dtype that `batch_norm` takes.
    gamma, beta : array_like, optional
        Shape (C,), or (N, C) with a row for each sample, as in adaptive instance normalization
        [2]_, or as ``keepdims=True`` leaves these; of any of x's dtypes, and integers are converted
        as `x` is. None means 1 and 0.
    axis : int
        The channels' axis, which is kept; not 0.
    eps : float
        Finite and > 0, added to the variance.
    activation : None, str or tuple
        Applied at the end, as in `batch_norm`.
    residual : array_like, optional
        Added before the activation, as in `batch_norm`.
    out : numpy.ndarray, optional
        An array to store `y` in, of x's shape and dtype, C-contiguous and writable. It must not
        overlap `x`.

    Returns
    -------
    y : numpy.ndarray
        x's shape and (converted) dtype, in C order.
    cache : Cache
        What `backward` needs. It refers to `x`, so do not change `x` before you call `backward`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. The message names it, and no array has been changed.

    References
    ----------
    .. [1] D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing Ingredient for
       Fast Stylization", arXiv:1607.08022, 2016.
    .. [2] X. Huang, S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance
       Normalization", ICCV 2017.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> y, cache = cybn.instance_norm(np.array([[[1.0, 3.0], [10.0, 30.0]]]))
    >>> y.round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    >>> cache.mean
    array([[ 2., 20.]])
    """
    given, x = x, as_input(x, "x")
    geometry = sample_geometry(x.shape, axis)
    settings = settings_of(eps=eps, activation=activation)
    arrays = Arrays(x, out, gamma, beta, third=residual)
    return normalize(given, arrays, geometry, settings)


def group_norm(
    x,
    num_groups,
    gamma=None,
    beta=None,
    *,
    axis=1,
    eps=1e-5,
    activation=None,
    residual=None,
    out=None,
):
    """Normalize groups of channels of every sample, then scale by gamma and shift by beta.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, with the mean and the (biased) variance of
    each sample and group of C / num_groups neighbouring channels [1]_.

    Parameters
    ----------
    x : array_like
        At least 2 dimensions, with the samples on axis 0; of any dtype that `batch_norm` takes.
    num_groups : int
        At least 1; it divides C.
    gamma, beta : array_like, optional
        Shape (C,), (N, C) with a row for each sample, or as ``keepdims=True`` leaves these; of any
        of x's dtypes, and integers are converted as `x` is. None means 1 and 0.
    axis : int
        The channels' axis, which is kept; not 0.
    eps : float
        Finite and > 0, added to the variance.
    activation : None, str or tuple
        Applied at the end, as in `batch_norm`.
    residual : array_like, optional
        Added before the activation, as in `batch_norm`.
    out : numpy.ndarray, optional
        An array to store `y` in, of x's shape and dtype, C-contiguous and writable. It must not
        overlap `x`.

    Returns
    -------
    y : numpy.ndarray
        x's shape and (converted) dtype, in C order.
    cache : Cache
        What `backward` needs. It refers to `x`, so do not change `x` before you call `backward`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. The message names it, and no array has been changed.

    References
    ----------
    .. [1] Y. Wu, K. He, "Group Normalization", ECCV 2018.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> y, cache = cybn.group_norm(np.array([[1.0, 3.0, 10.0, 30.0]]), 2)
    >>> y.round(3)
    array([[-1.,  1., -1.,  1.]])
    >>> cache.mean
    array([[ 2., 20.]])
    """
    given, x = x, as_input(x, "x")
    geometry = sample_geometry(x.shape, axis, checked_int(num_groups, "num_groups"))
    settings = settings_of(eps=eps, activation=activation)
    arrays = Arrays(x, out, gamma, beta, third=residual)
    return normalize(given, arrays, geometry, settings)


def weight_standardize(w, *, axis=0, eps=1e-5, out=None):
    """Standardize the weights of every output channel, as convolutions with group norm use them.

    ``w_hat = (w - mean) / sqrt(var + eps)``, with the mean and the (biased) variance of each output
    channel's weights [1]_.

    Parameters
    ----------
    w : array_like
        Weights, for example of shape (O, I, H, W); converted as x is in `batch_norm`.
    axis : int
        The axis of the output channels.
    eps : float
        Finite and > 0, added to the variance.
    out : numpy.ndarray, optional
        An array to store `w_hat` in, of w's shape and dtype, C-contiguous and writable. It must not
        overlap `w`.

    Returns
    -------
    w_hat : numpy.ndarray
        w's shape and (converted) dtype, in C order.
    cache : Cache
        What `backward` needs. The dx it returns is the gradient with respect to `w`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. The message names it, and no array has been changed.

    References
    ----------
    .. [1] S. Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight
       Standardization", arXiv:1903.10520, 2019.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> w_hat, cache = cybn.weight_standardize(np.array([[1.0, 3.0], [10.0, 30.0]]))
    >>> w_hat.round(3)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    given, w = w, as_input(w, "w")
    if isinstance(axis, tuple):
        raise TypeError(f"axis: expected an int, got {axis}")
    geometry = batch_geometry(w.shape, axis)
    return normalize(given, Arrays(w, out, None, None), geometry, settings_of(eps=eps))
