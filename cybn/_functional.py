"""Batch normalization as a function."""

import numpy as np

from ._geometry import as_input, as_mask, batch_geometry, is_plain
from ._normalize import Arrays, exchange_with, normalize
from ._settings import known_settings, settings_of

of_int = batch_geometry.of_int  # a frame less in each small call


def batch_norm(
    x,
    gamma=None,
    beta=None,
    *,
    running_mean=None,
    running_var=None,
    training=True,
    momentum=0.1,
    eps=1e-5,
    axis=1,
    where=None,
    activation=None,
    residual=None,
    group=None,
    out=None,
):
    """Normalize `x` over all axes but one, then scale by gamma and shift by beta.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, where mean and (biased) variance are those
    of each channel in `x` while training [1]_, and the running averages otherwise.

    Parameters
    ----------
    x : array_like
        float16, bfloat16 (that of ml_dtypes), float32 or float64, at least 1 dimension. Integers
        and bool are converted as ``np.result_type(x, np.float32)`` does.
    gamma, beta : array_like, optional
        Shape (C,), of any of these dtypes; integers are converted as `x` is. None means 1 and 0. Of
        shape (N, C) they have a row for each sample (axis 0), as in conditional batch normalization
        [2]_. Each may have x's number of axes, too, as ``keepdims=True`` leaves it: (1, C, 1, 1).
    running_mean, running_var : numpy.ndarray, optional
        Of any of these dtypes, shape (C,) or as ``keepdims=True`` leaves it; both or neither.
        Training updates them in place:
        ``new = (1 - momentum) * old + momentum * batch``, with the unbiased variance, as PyTorch
        does. Inference uses them.
    training : bool
        True normalizes with the mean and variance of `x`, which needs at least two values in each
        channel. False uses the running arrays.
    momentum : float
        From 0 to 1: the weight of the new batch in the running arrays.
    eps : float
        Finite and > 0, added to the variance.
    axis : int or tuple of int
        **The channels' axis, which is kept: mean and variance are taken over all the others** (as
        in Keras and Flax; NumPy's and `layer_norm`'s `axis` is what they are taken over). From
        ``-x.ndim`` to ``x.ndim - 1``, or adjacent axes in order: then "(C,)" is their shape, as
        (T, F) where ``axis=(1, 2)`` of (N, T, F).
    where : array_like of bool, optional
        The values that count, such as ``~np.isnan(x)``: of x's shape, or broadcast against `x` and
        of length 1 on the channel axis (with several, on any of them or none). All other values are
        not read, and are 0 in `y` and dx. The cache keeps a copy of the mask.
    activation : None, str or tuple
        Applied at the end, in the same pass: ``"relu"``, ``"relu6"``, ``("leaky_relu", slope)``
        with a finite slope >= 0, ``"hardswish"`` [3]_ or ``"silu"`` [4]_.
    residual : array_like, optional
        Added before the activation: of x's shape and dtype, or float32 beside an x of 16 bit.
    group : mpi4py.MPI.Comm or object, optional
        Processes that each pass a part of one batch: in training, the statistics are those of all
        parts, and so are the sums in `backward`. A communicator of mpi4py, or an object with
        ``size`` and ``allgather``, as under Notes.
    out : numpy.ndarray, optional
        An array to store `y` in, of x's shape and dtype, C-contiguous and writable. In inference
        it may be `x` itself, or another view of all of it; `backward` cannot use the cache then.

    Returns
    -------
    y : numpy.ndarray
        x's shape and (converted) dtype, in C order. Each float32 value is the one nearest to the
        exact result.
    cache : Cache
        What `backward` needs. It refers to `x`, so do not change `x` before you call `backward`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. The message names it, and no array has been changed.

    Notes
    -----
    With a residual and an activation, ``y = activation(norm(x) + residual)`` is computed in float64
    and rounded once. Without a residual, relu and relu6 give the same bits as if they were applied
    to a stored result. The cache refers to `x` and to the residual; if the result decides the
    derivative (relu, relu6, leaky_relu), it refers to `y` instead of the residual. Do not change
    these before `backward`.

    An empty `x`, or a `where` that selects nothing, leaves the running arrays as they are. A NaN or
    an infinity makes its own channel NaN, and no other.

    A `group` has an int ``size`` and a method ``allgather(vector)``, which takes a float64 array of
    shape (n,), as long for all members, and returns the arrays of all members in the order of their
    ranks, of shape (size, n). In training, all members make the same calls of `batch_norm` and
    `backward` in the same order, also with an empty `x`: each call gathers once (twice for more
    than 1,029 channels, or 686 with `where`), in inference not at all. Statistics are merged in the
    order of the ranks, so that mean, variance and running arrays have the same bits everywhere.
    ``cache.count`` counts the values of all; dgamma and dbeta are those of a member's own part, to
    be added up with the other gradients. An error of one member before it gathers, or a
    disagreement on channels, dtype or eps, is an error of all.

    References
    ----------
    .. [1] S. Ioffe, C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by
       Reducing Internal Covariate Shift", ICML 2015.
    .. [2] H. de Vries et al., "Modulating early visual processing by language", NeurIPS 2017.
    .. [3] A. Howard et al., "Searching for MobileNetV3", ICCV 2019.
    .. [4] S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-Weighted Linear Units for Neural Network
       Function Approximation in Reinforcement Learning", Neural Networks 107, 2018.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]], dtype=np.float32)
    >>> y, cache = cybn.forward(x, gamma=np.ones(2), beta=np.zeros(2))
    >>> y.round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)

    The end of a residual block, in one pass:

    >>> y, cache = cybn.batch_norm(x, activation="relu", residual=0.25 * np.ones_like(x))
    >>> y.round(3)
    array([[0.  , 0.  ],
           [1.25, 1.25]], dtype=float32)
    >>> cybn.backward(np.ones_like(y), cache).dresidual
    array([[0., 0.],
           [1., 1.]], dtype=float32)
    """
    exchange = exchange_with(group) if group is not None and training else None
    try:
        try:  # a frame less in each small call
            settings = known_settings(training, momentum, eps, True, activation)
        except TypeError:
            settings = settings_of(training, momentum, eps, True, activation)
        arrays = Arrays(x, out, gamma, beta, running_mean, running_var, residual)
        return normalize_batch(arrays, settings, axis, where, None, exchange)
    except Exception as error:
        if exchange is not None:
            exchange.fail(error)
        raise


forward = batch_norm


def normalize_batch(arrays, settings, axis, where, counters=None, exchange=None):
    """As `batch_norm`, with its `exchange_with` a group, or None.

    For a layer, `counters` says what else changes with the running arrays: it is a function of the
    number of values, which returns an object and new values of its attributes, or None.
    """
    given = x = arrays.x
    training = settings.training
    if not is_plain(x):
        x = arrays.x = as_input(x, "x")
    geometry = (of_int if type(axis) is int else batch_geometry)(x.shape, axis)
    mask = None if where is None else (*as_mask(where, x.shape, axis), where)
    if training and geometry.values == 1 and x.size and exchange is None:
        raise ValueError(
            f"x: expected more than 1 value per channel when training, got shape {x.shape}; "
            "use training=False (a layer's eval()), or drop a last batch of one"
        )
    if training and mask is not None and exchange is None and (mask[2] == 1).any():
        raise ValueError(
            "where: expected none or more than 1 value per channel when training, got 1 in channel "
            f"{np.flatnonzero(mask[1] == 1)[0]}; select more, or use training=False"
        )
    if not training and arrays.running_mean is None and arrays.running_var is None:
        raise ValueError(
            "running_mean: expected an array because training=False, got None; pass the "
            "statistics of the training, or training=True to use those of x"
        )
    return normalize(given, arrays, geometry, settings, mask, counters, exchange)
