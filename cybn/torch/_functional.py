"""Functions with the signatures of `torch.nn.functional`."""

import math
from operator import index

import numpy as np
import torch
from torch.nn import functional as F

from ._activations import find_activation
from ._autograd import normalize


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    *,
    residual=None,
    activation=None,
):
    """Normalize each channel, as `torch.nn.functional.batch_norm` does; then add, and activate.

    It is ``activation(batch_norm(input) + residual)``, of which either may be left out.

    Parameters
    ----------
    input : torch.Tensor
        Shape (N, C, ...). A contiguous or channels last tensor is read as it is, and the result has
        its memory format.
    running_mean, running_var : torch.Tensor or None
        Shape (C,); both or neither. Training updates them in place.
    weight, bias : torch.Tensor, optional
        Shape (C,): gamma and beta.
    training : bool
        Normalize with the statistics of `input`, not with the running ones.
    momentum : float
        From 0 to 1, the weight of the new value in the running statistics.
    eps : float
        Finite and > 0, added to the variance.
    residual : torch.Tensor, optional
        Is added to what is normalized.
    activation : str or tuple, optional
        "relu", "relu6", "hardswish", "silu" or ("leaky_relu", slope).

    Returns
    -------
    torch.Tensor

    Raises
    ------
    ValueError
        If the activation is another one, or running statistics that are to be updated share memory
        with another argument. For all else the errors are PyTorch's.

    Notes
    -----
    Tensors on the CPU of float32, float64, bfloat16 or float16 are normalized by cybn. Parameters
    and running statistics have the input's dtype, or float32 beside one of 16 bit. All others, and
    what functorch, forward-mode differentiation or tracing look at, are PyTorch's own.

    Examples
    --------
    >>> import torch, cybn.torch
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> cybn.torch.batch_norm(x, None, None, training=True, activation="relu")
    tensor([[0.0000],
            [1.0000]])
    """
    given = running_mean, running_var, weight, bias, training, momentum, eps
    return batch_norm_counted(input, None, *given, residual, activation)


def batch_norm_counted(
    input,
    batches,
    running_mean,
    running_var,
    weight,
    bias,
    training,
    momentum,
    eps,
    residual,
    activation,
):
    """As `batch_norm`; `batches` is a tensor that counts them, or None."""
    activate = None if activation is None else find_activation(activation)
    name, slope = activation if isinstance(activation, tuple) else (activation, 0.0)
    if (running_mean is None) == (running_var is None) and (training or running_mean is not None):
        updated = training and running_mean is not None
        numbers = _number(momentum) if updated else 0.0, _number(eps), name, _number(slope)
        settings = "batch", 0, bool(training), *numbers
        given = input, weight, bias, running_mean, running_var, residual, settings, batches
        y = normalize(*given)
        if y is not None:
            return y
    if batches is not None:
        batches.add_(1)
    y = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if residual is not None:
        y = y + residual
    return y if activate is None else activate(y)


def instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    """Normalize each channel of each sample, as `torch.nn.functional.instance_norm` does.

    Parameters
    ----------
    input : torch.Tensor
        Shape (N, C, L, ...).
    running_mean, running_var : torch.Tensor, optional
        Shape (C,). If they are to be updated PyTorch does all of it.
    weight, bias : torch.Tensor, optional
        Shape (C,): gamma and beta.
    use_input_stats : bool
        Normalize with the statistics of `input`, not with the running ones.
    momentum : float
        From 0 to 1, the weight of the new value in the running statistics.
    eps : float
        Finite and > 0, added to the variance.

    Returns
    -------
    torch.Tensor

    Examples
    --------
    >>> import torch, cybn.torch
    >>> cybn.torch.instance_norm(torch.tensor([[[1.0, 3.0], [10.0, 30.0]]]))
    tensor([[[-1.0000,  1.0000],
             [-1.0000,  1.0000]]])
    """
    if not use_input_stats and running_mean is not None:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if use_input_stats and running_mean is None and running_var is None:
        y = normalize(input, weight, bias, None, None, None, _settings("instance", 0, eps))
        if y is not None:
            return y
    return F.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """Normalize groups of channels of each sample, as `torch.nn.functional.group_norm` does.

    Parameters
    ----------
    input : torch.Tensor
        Shape (N, C, ...).
    num_groups : int
        A divisor of C.
    weight, bias : torch.Tensor, optional
        Shape (C,): gamma and beta.
    eps : float
        Finite and > 0, added to the variance.

    Returns
    -------
    torch.Tensor

    Examples
    --------
    >>> import torch, cybn.torch
    >>> cybn.torch.group_norm(torch.tensor([[1.0, 3.0, 10.0, 30.0]]), 2)
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])
    """
    groups = num_groups if isinstance(num_groups, int) else index(num_groups)
    y = normalize(input, weight, bias, None, None, None, _settings("group", groups, eps))
    return F.group_norm(input, num_groups, weight, bias, eps) if y is None else y


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Normalize the trailing dimensions, as `torch.nn.functional.layer_norm` does.

    Parameters
    ----------
    input : torch.Tensor
        Its last dimensions have the lengths of `normalized_shape`.
    normalized_shape : sequence of int
    weight, bias : torch.Tensor, optional
        gamma and beta, of that shape.
    eps : float
        Finite and > 0, added to the variance.

    Returns
    -------
    torch.Tensor

    Examples
    --------
    >>> import torch, cybn.torch
    >>> cybn.torch.layer_norm(torch.tensor([[1.0, 3.0], [10.0, 30.0]]), (2,))
    tensor([[-1.0000,  1.0000],
            [-1.0000,  1.0000]])
    """
    y = _normalize_trailing("layer", input, normalized_shape, weight, bias, eps)
    return F.layer_norm(input, normalized_shape, weight, bias, eps) if y is None else y


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """Divide by the root mean square of the trailing dimensions, as PyTorch's function does.

    Parameters
    ----------
    input : torch.Tensor
        Its last dimensions have the lengths of `normalized_shape`.
    normalized_shape : sequence of int
    weight : torch.Tensor, optional
        gamma, of that shape.
    eps : float, optional
        Finite and > 0, added to the mean square; None is ``torch.finfo(input.dtype).eps``.

    Returns
    -------
    torch.Tensor

    Examples
    --------
    >>> import torch, cybn.torch
    >>> cybn.torch.rms_norm(torch.tensor([[1.0, 7.0], [3.0, 4.0]]), (2,))
    tensor([[0.2000, 1.4000],
            [0.8485, 1.1314]])
    """
    positive = eps
    if eps is None:
        positive = torch.finfo(input.dtype).eps if input.is_floating_point() else 0.0
    y = _normalize_trailing("rms", input, normalized_shape, weight, None, positive)
    return F.rms_norm(input, normalized_shape, weight, eps) if y is None else y


def _normalize_trailing(norm, x, normalized_shape, weight, bias, eps):
    shape = tuple(normalized_shape)
    if x.shape[-len(shape) :] != shape:  # also if it has no lengths: then that is all of x
        return None
    return normalize(x, weight, bias, None, None, None, _settings(norm, len(shape), eps))


def _settings(norm, number, eps):
    return norm, number, True, 0.0, _number(eps), None, 0.0


def _number(value):
    """Return a float; of what is no number NaN, which PyTorch is left to say."""
    return float(value) if isinstance(value, (int, float, np.number)) else math.nan
