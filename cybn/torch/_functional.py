"""Functions with the signatures of `torch.nn.functional`."""

import math

import torch
from torch.autograd import forward_ad
from torch.nn import functional as F

from ._activations import find_activation
from ._arrays import DTYPES, Settings
from ._autograd import normalize

_PLAIN = (torch.Tensor, torch.nn.Parameter)


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
        If the activation is another one. For all else the errors are PyTorch's.

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
    activate = None if activation is None else find_activation(activation)
    if (
        input.dim() >= 2
        and _are_taken(input, eps, input.shape[1:2], running_mean, running_var, weight, bias)
        and (running_mean is None) == (running_var is None)
        and (input.numel() > input.shape[1] if training else running_mean is not None)
    ):
        if not training or running_mean is None:
            momentum = 0.0
        name, slope = activation if isinstance(activation, tuple) else (activation, 0.0)
        if (
            0 <= momentum <= 1
            and 0 <= slope < math.inf
            and (residual is None or residual.dtype is input.dtype)
            and (residual is None or _are_taken(residual, eps, input.shape, residual))
        ):
            settings = "batch", 0, bool(training), float(momentum), float(eps), name, float(slope)
            given = input, weight, bias, running_mean, running_var, Settings(*settings)
            return normalize(*given, residual)
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
    if (
        use_input_stats
        and running_mean is None
        and running_var is None
        and input.dim() >= 3
        and _are_taken(input, eps, input.shape[1:2], weight, bias)
        and math.prod(input.shape[2:]) > 1
    ):
        settings = Settings("instance", 0, True, 0.0, float(eps))
        return normalize(input, weight, bias, None, None, settings)
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
    if (
        input.dim() >= 2
        and _are_taken(input, eps, input.shape[1:2], weight, bias)
        and num_groups > 0
        and input.shape[1] % num_groups == 0
        and input.numel() > input.shape[0] * num_groups
    ):
        settings = Settings("group", num_groups, True, 0.0, float(eps))
        return normalize(input, weight, bias, None, None, settings)
    return F.group_norm(input, num_groups, weight, bias, eps)


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
    shape = tuple(normalized_shape)
    if _is_trailing(shape, input) and _are_taken(input, eps, shape, weight, bias):
        settings = Settings("layer", len(shape), True, 0.0, float(eps))
        return normalize(input, weight, bias, None, None, settings)
    return F.layer_norm(input, normalized_shape, weight, bias, eps)


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
    shape = tuple(normalized_shape)
    if _is_trailing(shape, input) and input.is_floating_point():
        positive = torch.finfo(input.dtype).eps if eps is None else eps
        if _are_taken(input, positive, shape, weight):
            settings = Settings("rms", len(shape), True, 0.0, float(positive))
            return normalize(input, weight, None, None, None, settings)
    return F.rms_norm(input, normalized_shape, weight, eps)


def _is_trailing(shape, x):
    return len(shape) > 0 and x.shape[-len(shape) :] == shape


def _are_taken(x, eps, shape, *others):
    """Whether tensors are such as cybn takes, and nobody but autograd follows what is done.

    `others` are parameters and running statistics of this shape, or None.
    """
    dtype = x.dtype
    if (
        dtype not in DTYPES
        or not x.is_cpu
        or type(x) not in _PLAIN
        or x.layout is not torch.strided
        or not x.numel()
        or not 0 < eps < math.inf
    ):
        return False
    if dtype.itemsize == 2 and all(each is None or each.dtype is torch.float32 for each in others):
        dtype = torch.float32
    for tensor in others:
        if tensor is not None and not (
            tensor.dtype is dtype
            and tensor.is_cpu
            and type(tensor) in _PLAIN
            and tensor.shape == shape
        ):
            return False
    if torch.compiler.is_compiling():
        return not torch.compiler.is_exporting()
    return not (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
    )
