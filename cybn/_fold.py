"""fold: an inference batch norm becomes a part of the layer before it."""

import numpy as np

from ._batch_norm_layer import BatchNorm
from ._checks import checked_eps, checked_int
from ._geometry import as_input, batch_geometry


def fold(weight, bias, bn, *, axis=0):
    """Fold a batch norm into the linear layer or convolution before it: return weight and bias.

    In inference, ``bn(w @ x + b)`` equals ``w_new @ x + b_new``, where for each output channel::

        scale = gamma / sqrt(running_var + eps)
        w_new = w * scale
        b_new = (b - running_mean) * scale + beta

    Parameters
    ----------
    weight : array_like
        With O output channels on `axis`: shape (O, I) or (O, I, kH, kW) in PyTorch.
    bias : array_like or None
        Shape (O,). None stands for 0.
    bn : BatchNorm
        A layer of O channels in inference, with running statistics and without an activation.
    axis : int
        The axis of the output channels: 0 in PyTorch's linear layers and convolutions, 1 in its
        transposed ones; -1 in Keras and Flax, as in ``x @ weight``.

    Returns
    -------
    weight, bias : numpy.ndarray
        New arrays of the dtype of `weight`. They are computed in float64 and rounded once.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, weight, bias = rng.normal(size=(8, 5)), rng.normal(size=(3, 5)), rng.normal(size=3)
    >>> bn = cybn.BatchNorm(3)
    >>> y = bn(x @ weight.T + bias)
    >>> new_weight, new_bias = cybn.fold(weight, bias, bn.eval())
    >>> np.allclose(x @ new_weight.T + new_bias, bn(x @ weight.T + bias), rtol=1e-12)
    True
    """
    if not isinstance(bn, BatchNorm):
        raise TypeError(f"bn: expected a BatchNorm, got {type(bn).__name__}")
    if not bn.track_running_stats:
        raise ValueError("bn: expected a layer with track_running_stats=True, got False")
    if bn.training:
        raise ValueError("bn: expected a layer in inference, got one in training: call bn.eval()")
    if bn.activation is not None:
        raise ValueError(
            f"bn: expected a layer without activation, got {bn.activation!r}, which cannot be "
            "folded: set bn.activation = None, and apply it to the result"
        )
    weight, axis = as_input(weight, "weight"), checked_int(axis, "axis")
    channels = (bn.num_features,)
    if not weight.ndim or batch_geometry(weight.shape, axis).parameters != channels:
        raise ValueError(
            f"weight: expected {bn.num_features} output channels on axis {axis}, "
            f"got shape {weight.shape}{_usual_axis(weight.shape, bn.num_features)}"
        )
    ones, zeros = np.ones(channels), np.zeros(channels)
    mean = as_input(bn.running_mean, "running_mean", like=zeros)
    var = as_input(bn.running_var, "running_var", like=ones)
    gamma, beta = _or_default(bn.gamma, "gamma", ones), _or_default(bn.beta, "beta", zeros)
    bias = _or_default(bias, "bias", zeros)
    with np.errstate(all="ignore"):  # NaN and infinity go their way, as in the kernels
        scale = gamma / np.sqrt(var + checked_eps(bn.eps))
        new_bias = (bias - mean) * scale + beta
        new_weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1 - axis % weight.ndim))
        return new_weight.astype(weight.dtype), new_bias.astype(weight.dtype)


def _or_default(value, name, default):
    """Return a parameter as float64, or where it is None the default, of the same shape."""
    return default if value is None else as_input(value, name, like=default)


def _usual_axis(shape, channels):
    """Return the usual remedy, if another usual axis has that many channels."""
    fits = [axis for axis in (0, -1) if shape and shape[axis] == channels]
    return f"; pass axis={fits[0]}?" if fits else ""
