"""The layers around BatchNorm that need no other sample: layer, RMS, group and instance norm."""

import math

import numpy as np

from ._checks import check_settings, checked_int
from ._functional import batch_norm
from ._geometry import remedies
from ._layer import ChannelLayer, Layer, TrackingLayer, check_channels, shape_of
from ._norms import group_norm, instance_norm, layer_norm, rms_norm


class _TrailingNorm(Layer):
    """A layer whose statistics, like its parameters, are those of the trailing axes."""

    _leading = ("normalized_shape",)

    def __init__(self, normalized_shape, eps, affine, bias, dtype):
        self.normalized_shape = _checked_lengths(normalized_shape)
        self._axes = tuple(range(-len(self.normalized_shape), 0))
        super().__init__(self.normalized_shape, eps, affine, bias, dtype)

    def _check_input(self, x):
        shape = shape_of(x)
        if shape[-len(self._axes) :] != self.normalized_shape:
            raise ValueError(
                f"x: expected a shape that ends in {self.normalized_shape}, got {shape}"
                f"{remedies().for_lengths(shape, self.normalized_shape, reduced=True)}"
            )


class LayerNorm(_TrailingNorm):
    """Layer normalization with its parameters: each sample by its own statistics.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, with mean and variance over the trailing
    axes [1]_.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Lengths of the trailing axes, each at least 1.
    eps : float
        Finite and > 0, added to the variance.
    affine : bool
        Whether there are a gamma and a beta.
    bias : bool
        False leaves out beta.
    dtype : dtype
        The dtype of the parameters: float16, bfloat16, float32 or float64.

    Attributes
    ----------
    normalized_shape : tuple of int
    gamma, beta : numpy.ndarray or None
        Of shape `normalized_shape`, initially 1 and 0. Update them in place or assign new ones.
    dgamma, dbeta : numpy.ndarray or None
        Their gradients, from the last `backward`.
    cache : Cache or None
        What the last call kept for `backward`; None if that call was in inference.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    .. [1] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016, arXiv:1607.06450.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> norm = cybn.LayerNorm(4)
    >>> norm(np.array([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]])).round(3)
    array([[-1.342, -0.447,  0.447,  1.342],
           [-1.342, -0.447,  0.447,  1.342]])
    >>> dx = norm.backward(np.ones((2, 4)))
    >>> norm.dbeta
    array([2., 2., 2., 2.], dtype=float32)
    """

    def __init__(self, normalized_shape, *, eps=1e-5, affine=True, bias=True, dtype=np.float32):
        super().__init__(normalized_shape, eps, affine, bias, dtype)

    def _normalize(self, training, x, out):
        self._check_input(x)
        return layer_norm(x, self.gamma, self.beta, axis=self._axes, eps=self.eps, out=out)


class RMSNorm(_TrailingNorm):
    """Root mean square normalization with its parameter: nothing is subtracted.

    ``y = x / sqrt(mean(x**2) + eps) * gamma``, with the mean over the trailing axes [1]_.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Lengths of the trailing axes, each at least 1.
    eps : float
        Finite and > 0, added to the mean square.
    affine : bool
        Whether there is a gamma.
    dtype : dtype
        The dtype of the parameter: float16, bfloat16, float32 or float64.

    Attributes
    ----------
    normalized_shape : tuple of int
    gamma : numpy.ndarray or None
        Of shape `normalized_shape`, initially 1. Update it in place or assign a new one.
    dgamma : numpy.ndarray or None
        Its gradient, from the last `backward`.
    beta, dbeta : None
    cache : Cache or None
        What the last call kept for `backward`; None if that call was in inference.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    .. [1] B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> norm = cybn.RMSNorm(2)
    >>> norm(np.array([[1.0, 7.0], [-30.0, 40.0]])).round(3)
    array([[ 0.2  ,  1.4  ],
           [-0.849,  1.131]])
    """

    _options = ("eps", "affine", "dtype")

    def __init__(self, normalized_shape, *, eps=1e-5, affine=True, dtype=np.float32):
        super().__init__(normalized_shape, eps, affine, False, dtype)

    def _normalize(self, training, x, out):
        self._check_input(x)
        return rms_norm(x, self.gamma, axis=self._axes, eps=self.eps, out=out)


class GroupNorm(ChannelLayer):
    """Group normalization with its parameters: groups of channels of each sample.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, with mean and variance over the values of a
    sample in ``num_channels / num_groups`` adjacent channels [1]_.

    Parameters
    ----------
    num_groups : int
        A divisor of `num_channels`.
    num_channels : int
        At least 1.
    axis : int
        **The channels' axis of the input, which is kept**; not the first one.
    eps : float
        Finite and > 0, added to the variance.
    affine : bool
        Whether there are a gamma and a beta.
    bias : bool
        False leaves out beta.
    activation : None, str or tuple
        Applied to the result, as in `cybn.batch_norm`: ``"relu"``, ``"relu6"``,
        ``("leaky_relu", slope)``, ``"hardswish"`` or ``"silu"``.
    dtype : dtype
        The dtype of the parameters: float16, bfloat16, float32 or float64.

    Attributes
    ----------
    gamma, beta : numpy.ndarray or None
        Shape (C,), initially 1 and 0. Update them in place or assign new ones.
    dgamma, dbeta : numpy.ndarray or None
        Their gradients, from the last `backward`.
    dresidual : numpy.ndarray or None
        The gradient of the residual, from the last `backward`.
    cache : Cache or None
        What the last call kept for `backward`; None if that call was in inference.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    .. [1] Y. Wu, K. He, "Group Normalization", ECCV 2018.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> norm = cybn.GroupNorm(2, 4)
    >>> norm(np.array([[1.0, 3.0, 10.0, 30.0]])).round(3)
    array([[-1.,  1., -1.,  1.]])
    """

    _leading = ("num_groups", "num_channels")
    _options = ("axis", *Layer._options)

    def __init__(
        self,
        num_groups,
        num_channels,
        *,
        axis=1,
        eps=1e-5,
        affine=True,
        bias=True,
        activation=None,
        dtype=np.float32,
    ):
        self.num_groups = checked_int(num_groups, "num_groups", least=1)
        self.num_channels = checked_int(num_channels, "num_channels", least=1)
        if self.num_channels % self.num_groups:
            raise ValueError(
                f"num_groups: expected a divisor of {self.num_channels}, got {self.num_groups}"
            )
        super().__init__(self.num_channels, axis, eps, affine, bias, activation, dtype)

    def _normalize(self, training, x, **options):
        check_channels(x, self.axis, self.num_channels)
        options |= {"axis": self.axis, "eps": self.eps, "activation": self.activation}
        return group_norm(x, self.num_groups, self.gamma, self.beta, **options)


class InstanceNorm(TrackingLayer):
    """Instance normalization with its parameters: each channel of each sample.

    ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, with mean and variance over the values of a
    sample in a channel [1]_; or, in inference, with the running ones if they are tracked.

    Parameters
    ----------
    num_features : int
        Channels, at least 1.
    axis : int
        **The channels' axis of the input, which is kept**; not the first one.
    eps : float
        Finite and > 0, added to the variance.
    momentum : float
        From 0 to 1, the weight of a new batch in the running averages: of the mean over its
        samples of their means, and of their unbiased variances, as in PyTorch.
    affine : bool
        Whether there are a gamma and a beta.
    bias : bool
        False leaves out beta.
    track_running_stats : bool
        Whether there are running averages. Without them inference, too, uses each sample's own.
    activation : None, str or tuple
        Applied to the result, as in `cybn.batch_norm`: ``"relu"``, ``"relu6"``,
        ``("leaky_relu", slope)``, ``"hardswish"`` or ``"silu"``.
    dtype : dtype
        The dtype of the parameters and running averages: float16, bfloat16, float32 or float64.

    Attributes
    ----------
    gamma, beta : numpy.ndarray or None
        Shape (C,), initially 1 and 0. Update them in place or assign new ones.
    dgamma, dbeta : numpy.ndarray or None
        Their gradients, from the last `backward`.
    dresidual : numpy.ndarray or None
        The gradient of the residual, from the last `backward`.
    running_mean, running_var : numpy.ndarray or None
        Shape (C,), initially 0 and 1.
    num_batches_tracked : int
        How many batches went into the running averages.
    cache : Cache or None
        What the last call kept for `backward`; None if that call was in inference.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    References
    ----------
    .. [1] D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing Ingredient for
       Fast Stylization", 2016, arXiv:1607.08022.

    Examples
    --------
    >>> import cybn, numpy as np
    >>> norm = cybn.InstanceNorm(1)
    >>> norm(np.array([[[1.0, 3.0]], [[10.0, 30.0]]])).round(3)
    array([[[-1.,  1.]],
    <BLANKLINE>
           [[-1.,  1.]]])
    """

    def __init__(
        self,
        num_features,
        *,
        axis=1,
        eps=1e-5,
        momentum=0.1,
        affine=False,
        bias=True,
        track_running_stats=False,
        activation=None,
        dtype=np.float32,
    ):
        check_settings(True, momentum, eps)
        options = affine, bias, track_running_stats, activation, dtype
        super().__init__(num_features, axis, eps, momentum, *options)

    def _normalize(self, training, x, **options):
        geometry = check_channels(x, self.axis, self.num_features)
        arrays, parameters = options.copy(), (self.gamma, self.beta)
        options |= {"axis": self.axis, "eps": self.eps, "activation": self.activation}
        if not self.track_running_stats:
            return instance_norm(x, *parameters, **options)
        if not training:
            running = {"running_mean": self.running_mean, "running_var": self.running_var}
            return batch_norm(x, *parameters, **running, training=False, **options)
        samples, *lengths = shape_of(x)
        count = math.prod(lengths) // self.num_features
        if count == 1 and samples:
            raise ValueError(
                "x: expected more than 1 value per sample and channel when training, "
                f"got shape {(samples, *lengths)}; use training=False, or eval()"
            )
        check_settings(True, self.momentum, self.eps)
        self._check_running(geometry, x=x, **arrays)
        y, cache = instance_norm(x, *parameters, **options)
        if count and samples:
            self._average(cache, samples, count)
        return y, cache

    def _average(self, cache, samples, count):
        """Average the mean over the samples of their statistics into the running ones."""
        shape, momentum = (samples, self.num_features), self.momentum
        with np.errstate(all="ignore"):
            mean, var = (values.reshape(shape).mean(axis=0) for values in (cache.mean, cache.var))
            unbiased = var * (count / (count - 1))
            new = [
                (1 - momentum) * np.asarray(old, np.float64).reshape(-1) + momentum * batch
                for old, batch in ((self.running_mean, mean), (self.running_var, unbiased))
            ]
        self._track(*new, {"num_batches_tracked": self.num_batches_tracked + 1})


def _checked_lengths(value):
    """Return the lengths of trailing axes, given as an int or as several, as a tuple."""
    given = value if isinstance(value, (tuple, list)) else (value,)
    lengths = tuple(checked_int(length, "normalized_shape", least=1) for length in given)
    if not lengths:
        raise ValueError("normalized_shape: expected one length or more, got none")
    return lengths
