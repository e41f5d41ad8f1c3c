"""Functions with the signatures of `torch.nn.functional`."""

import math

import torch
from torch.autograd import forward_ad
from torch.nn import functional as F

from ._arrays import Settings
from ._autograd import normalize

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_DTYPES = (torch.float32, torch.float64)


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
):
    """As `torch.nn.functional.batch_norm`."""
    channels = input.shape[1:2]
    if (
        input.dim() >= 2
        and _are_taken(input, eps, channels, running_mean, running_var, weight, bias)
        and (running_mean is None) == (running_var is None)
        and (_can_train(input, momentum) if training else running_mean is not None)
    ):
        settings = Settings("batch", 0, bool(training), float(momentum), float(eps))
        return normalize(input, weight, bias, running_mean, running_var, settings)
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


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
    """As `torch.nn.functional.instance_norm`.

    With both `use_input_stats` and running statistics it is PyTorch's.
    """
    if not use_input_stats:
        given = input, running_mean, running_var, weight, bias
        if running_mean is not None and running_var is not None:
            return batch_norm(*given, False, momentum, eps)
    elif (
        input.dim() >= 3
        and _are_taken(input, eps, input.shape[1:2], weight, bias)
        and running_mean is None
        and running_var is None
        and math.prod(input.shape[2:]) > 1
    ):
        settings = Settings("instance", 0, True, 0.0, float(eps))
        return normalize(input, weight, bias, None, None, settings)
    return F.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """As `torch.nn.functional.group_norm`."""
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
    """As `torch.nn.functional.layer_norm`."""
    shape = tuple(normalized_shape)
    if _is_trailing(shape, input) and _are_taken(input, eps, shape, weight, bias):
        settings = Settings("layer", len(shape), True, 0.0, float(eps))
        return normalize(input, weight, bias, None, None, settings)
    return F.layer_norm(input, normalized_shape, weight, bias, eps)


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """As `torch.nn.functional.rms_norm`."""
    shape = tuple(normalized_shape)
    of_dtype = torch.finfo(input.dtype).eps if eps is None and input.is_floating_point() else eps
    if _is_trailing(shape, input) and _are_taken(input, of_dtype, shape, weight):
        settings = Settings("rms", len(shape), True, 0.0, float(of_dtype))
        return normalize(input, weight, None, None, None, settings)
    return F.rms_norm(input, normalized_shape, weight, eps)


def _can_train(x, momentum):
    return x.numel() > x.shape[1] and 0 <= momentum <= 1


def _is_trailing(shape, x):
    return 0 < len(shape) and x.shape[-len(shape) :] == shape


def _are_taken(x, eps, shape, *others):
    """Whether tensors are such as cybn takes, and nobody but autograd follows what is done.

    `others` are parameters and running statistics of this shape, or None.
    """
    dtype = x.dtype
    if (
        dtype not in _DTYPES
        or not x.is_cpu
        or type(x) not in _PLAIN
        or x.layout is not torch.strided
        or not x.numel()
        or not 0 < eps < math.inf
    ):
        return False
    for tensor in others:
        if tensor is not None and not (
            tensor.dtype is dtype
            and tensor.is_cpu
            and type(tensor) in _PLAIN
            and tensor.shape == shape
        ):
            return False
    return torch.compiler.is_compiling() or not (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
    )
