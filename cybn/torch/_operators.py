"""The operators `cybn::norm` and `cybn::norm_backward`, as compilers and dispatch modes see them.

They change nothing that they are given: running statistics come back as results.
"""

import math

import torch
from torch.nn import functional as F

from .._geometry import trailing_geometry
from .._normalize import kernels
from . import _arrays
from ._arrays import Settings, by_channel, result_like

_SETTINGS = "str norm, int number, bool training, float momentum, float eps"
# Of `saved`, a value inside a statistic of layer norm.
_SAVED_INSIDE = trailing_geometry((1, 1), -1).saved_size - kernels.SAVED_ROWS

torch.library.define(
    "cybn::norm",
    "(Tensor x, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, "
    f"{_SETTINGS}) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.needs_exact_strides,
)
torch.library.define(
    "cybn::norm_backward",
    f"(Tensor dy, Tensor x, Tensor? weight, Tensor saved, {_SETTINGS}, bool[] needed) "
    "-> (Tensor, Tensor, Tensor)",
    tags=torch.Tag.needs_exact_strides,
)


@torch.library.impl("cybn::norm", "cpu")
def _norm(x, weight, bias, running_mean, running_var, *settings):
    settings = Settings(*settings)
    running = running_mean, running_var
    if settings.training:
        running = tuple(each if each is None else each.detach().clone() for each in running)
    y, saved = _arrays.forward(x, weight, bias, *running, settings)
    if not settings.training:
        running = None, None
    return y, torch.from_numpy(saved), *(_or_empty(each, x) for each in running)


@torch.library.register_fake("cybn::norm")
def _(x, weight, bias, running_mean, running_var, *settings):
    settings = Settings(*settings)
    if by_channel(settings.norm):
        cells, inside = (1 if settings.norm == "batch" else x.shape[0]) * x.shape[1], 0
    else:
        start = x.dim() - settings.number
        cells, inside = math.prod(x.shape[:start]), math.prod(x.shape[start:])
    saved_size = kernels.SAVED_ROWS * cells + _SAVED_INSIDE * inside
    saved = torch.empty(saved_size, dtype=torch.float64, device=x.device)
    running = (running_mean, running_var) if settings.training else (None, None)
    running = (each if each is None else torch.empty_like(each) for each in running)
    return result_like(x, settings.norm), saved, *(_or_empty(each, x) for each in running)


@torch.library.impl("cybn::norm_backward", "cpu")
def _norm_backward(dy, x, weight, saved, *settings):
    *settings, needed = settings
    results = _arrays.gradients(dy, x, _array_of(saved), Settings(*settings), needed)
    return tuple(_or_empty(each, x) for each in results)


@torch.library.register_fake("cybn::norm_backward")
def _(dy, x, weight, saved, *settings):
    *settings, needed = settings
    settings = Settings(*settings)
    shape = x.shape[1:2] if by_channel(settings.norm) else x.shape[x.dim() - settings.number :]
    parameters = (x.new_empty(shape if each else 0) for each in needed[1:])
    return result_like(x, settings.norm), *parameters


def norm(x, weight, bias, running_mean, running_var, settings):
    """Normalize by the operator, and take over the running statistics."""
    y, _, *new = torch.ops.cybn.norm(x, weight, bias, running_mean, running_var, *settings)
    if settings.training and running_mean is not None:
        with torch.no_grad():
            running_mean.copy_(new[0])
            running_var.copy_(new[1])
    return y


def norm_backward(dy, x, weight, saved, settings, needed):
    """Return the gradients of a norm, which have gradients themselves; None where not needed."""
    results = torch.ops.cybn.norm_backward(dy, x, weight, saved, *settings, needed)
    return tuple(each if want else None for each, want in zip(results, needed, strict=True))


def _or_empty(tensor, x):
    """Return a tensor; an empty one for None, which an operator cannot return."""
    return x.new_empty(0) if tensor is None else tensor


def _array_of(saved):
    return saved.numpy(force=True)


def _set_up_norm(ctx, inputs, output):
    x, weight, *_ = inputs
    ctx.settings = Settings(*inputs[5:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, output[1])


def _differentiate_norm(ctx, dy, *_):
    needed = list(ctx.needs_input_grad[:3])
    nothing = [None] * (2 + len(ctx.settings))
    if dy is None:
        return None, None, None, *nothing
    x, weight, saved = ctx.saved_tensors
    return *norm_backward(dy, x, weight, saved, ctx.settings, needed), *nothing


def _set_up_norm_backward(ctx, inputs, output):
    *tensors, norm, number, training, momentum, eps, ctx.needed = inputs
    ctx.settings = Settings(norm, number, training, momentum, eps)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _differentiate_norm_backward(ctx, *gradients):
    """Differentiate what PyTorch's own function has as its gradients.

    It is given a weight and a bias in any case: without them not all of that is right in PyTorch.
    """
    dy, x, weight, saved = ctx.saved_tensors
    further = torch.is_grad_enabled()
    norm, number, *_ = ctx.settings
    shape = x.shape[1:2] if by_channel(norm) else x.shape[-number:]
    with torch.enable_grad():
        inputs = dy, x, weight = [
            _apart(each) for each in (dy, x, x.new_ones(shape) if weight is None else weight)
        ]
        bias = x.new_zeros(shape, requires_grad=True)
        y = reference(x, weight, bias, saved, ctx.settings)
        firsts = torch.autograd.grad(
            y, (x, weight, bias), dy, create_graph=True, allow_unused=True, materialize_grads=True
        )
        wanted = [
            (first, gradient)
            for first, gradient, each in zip(firsts, gradients, ctx.needed, strict=True)
            if each and first.requires_grad and gradient is not None
        ]
        seconds = [None] * len(inputs)
        if wanted:
            firsts, gradients = zip(*wanted, strict=True)
            seconds = torch.autograd.grad(
                firsts, inputs, gradients, create_graph=further, allow_unused=True
            )
    if ctx.saved_tensors[2] is None:
        seconds = *seconds[:2], None
    return *seconds, *[None] * (2 + len(ctx.settings))


def _apart(tensor):
    """Return a tensor with gradients of its own, which still lead to the given one's."""
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def reference(x, weight, bias, saved, settings):
    """Return what PyTorch's own function makes of the input."""
    norm, number, training, _, eps = settings
    if norm == "batch":
        running = None, None
        if not training:
            rows = saved.detach().view(kernels.SAVED_ROWS, -1).to(x.dtype)
            running = rows[kernels.MEAN], rows[kernels.VAR]
        return F.batch_norm(x, *running, weight, bias, training, 0.0, eps)
    if norm == "instance":
        return F.instance_norm(x, None, None, weight, bias, True, 0.0, eps)
    if norm == "group":
        return F.group_norm(x, number, weight, bias, eps)
    if norm == "layer":
        return F.layer_norm(x, x.shape[-number:], weight, bias, eps)
    return F.rms_norm(x, x.shape[-number:], weight, eps)


torch.library.register_autograd("cybn::norm", _differentiate_norm, setup_context=_set_up_norm)
torch.library.register_autograd(
    "cybn::norm_backward", _differentiate_norm_backward, setup_context=_set_up_norm_backward
)
