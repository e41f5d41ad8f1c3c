"""The operators `cybn::norm` and `cybn::norm_backward`, as compilers and dispatch modes see them.

They change nothing that they are given: running statistics come back as results.
"""

import math

import torch
from torch.nn import functional as F

from .._geometry import trailing_geometry
from .._normalize import Arrays, kernels
from ._activations import find_activation
from ._arrays import dtype_beside, forward, gradients, known_arrays, result_like
from ._plans import Settings, by_channel, parameters_of, plan_of

_SETTINGS = (
    "str norm, int number, bool training, float momentum, float eps, str? activation, float slope"
)
# Of `saved`, a value inside a statistic of layer norm.
_SAVED_INSIDE = trailing_geometry((1, 1), -1).saved_size - kernels.SAVED_ROWS

torch.library.define(
    "cybn::norm",
    "(Tensor x, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, "
    f"Tensor? residual, {_SETTINGS}) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.needs_exact_strides,
)
torch.library.define(
    "cybn::norm_backward",
    "(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, Tensor saved, Tensor? third, "
    f"{_SETTINGS}, bool[] needed) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.needs_exact_strides,
)


@torch.library.impl("cybn::norm", "cpu")
def _norm(x, weight, bias, running_mean, running_var, residual, *settings):
    settings = Settings(*settings)
    running = running_mean, running_var
    if settings.training:
        running = tuple(each if each is None else each.detach().clone() for each in running)
    plan, others = _plan_of(x, settings), (weight, bias, *running)
    known = known_arrays(others, dtype_beside(x, others), plan.parameters)
    arrays = Arrays(None, None, *known)
    y = forward(x, residual, arrays, plan)
    if not settings.training:
        running = None, None
    return y, torch.from_numpy(arrays.saved), *(_or_empty(each, x) for each in running)


@torch.library.register_fake("cybn::norm")
def _(x, weight, bias, running_mean, running_var, residual, *settings):
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
def _norm_backward(dy, x, weight, bias, saved, third, *settings):
    *settings, needed = settings
    plan, like = _plan_of(x, settings), like_parameters(x, weight, bias)
    results = gradients(dy, x, like, third, saved.numpy(force=True), plan, needed)
    dx, dweight, dbias, dresidual = results
    return (
        *(_or_empty(dx, x), _or_empty(dweight, like)),
        *(_or_empty(dbias, like), _or_empty(dresidual, x)),
    )


@torch.library.register_fake("cybn::norm_backward")
def _(dy, x, weight, bias, saved, third, *settings):
    norm, number, *_, needed = settings
    shape, like = parameters_of(x.shape, norm, number), like_parameters(x, weight, bias)
    dx, dresidual = (
        result_like(x, norm) if each else x.new_empty(0) for each in (needed[0], needed[3])
    )
    dweight, dbias = (like.new_empty(shape if each else 0) for each in needed[1:3])
    return dx, dweight, dbias, dresidual


def _plan_of(x, settings):
    plan = plan_of(x.shape, x.stride(), tuple(settings))
    if plan is None:
        raise ValueError(
            f"settings: expected those of a norm that cybn takes, got {tuple(settings)} for x of "
            f"shape {tuple(x.shape)}"
        )
    return plan


def norm(x, weight, bias, running_mean, running_var, residual, settings):
    """Normalize by the operator, and take over the running statistics."""
    given = x, weight, bias, running_mean, running_var, residual, *settings
    y, _, *new = torch.ops.cybn.norm(*given)
    if settings.training and running_mean is not None:
        with torch.no_grad():
            running_mean.copy_(new[0])
            running_var.copy_(new[1])
    return y


def norm_backward(dy, tensors, settings, needed):
    """Return the gradients of a norm, which have gradients themselves; None where not needed.

    `tensors` are x, weight, bias, saved and third; bias is only asked for with an activation, or
    if there is no weight.
    """
    results = torch.ops.cybn.norm_backward(dy, *tensors, *settings, needed)
    return tuple(each if want else None for each, want in zip(results, needed, strict=True))


def like_parameters(x, weight, bias):
    """Return a tensor that has the parameters' dtype."""
    if weight is None:
        return x if bias is None else bias
    return weight


def _or_empty(tensor, x):
    """Return a tensor; an empty one for None, which an operator cannot return."""
    return x.new_empty(0) if tensor is None else tensor


def tensors_for_backward(x, weight, bias, residual, y, settings):
    """Return what the gradients need: x, weight, bias, and of residual and result at most one."""
    if settings.activation is None and weight is not None:
        bias = None
    return x, weight, bias, residual if residual is None or not settings.keeps_result() else y


def _set_up_norm(ctx, inputs, output):
    x, weight, bias, _, _, residual, *settings = inputs
    y, saved, *_ = output
    ctx.settings = Settings(*settings)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    tensors = tensors_for_backward(x, weight, bias, residual, y, ctx.settings)
    ctx.save_for_backward(*tensors, saved)


def _differentiate_norm(ctx, dy, *_):
    nothing = [None] * len(ctx.settings)
    if dy is None:
        return *[None] * 6, *nothing
    *tensors, third, saved = ctx.saved_tensors
    needed = [ctx.needs_input_grad[i] for i in (0, 1, 2, 5)]
    *gradients, dresidual = norm_backward(dy, (*tensors, saved, third), ctx.settings, needed)
    return *gradients, None, None, dresidual, *nothing


def _set_up_norm_backward(ctx, inputs, output):
    *given, ctx.needed = inputs
    ctx.settings = Settings(*given[6:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*given[:6])


def _differentiate_norm_backward(ctx, *gradients):
    """Differentiate what PyTorch's own functions have as their gradients.

    They are given a weight and a bias in any case: without them not all is right in PyTorch.
    """
    dy, x, weight, bias, saved, third = given = ctx.saved_tensors
    further = torch.is_grad_enabled()
    norm, number, *_ = ctx.settings
    shape = parameters_of(x.shape, norm, number)
    with torch.enable_grad():
        weight = x.new_ones(shape) if weight is None else weight
        bias = x.new_zeros(shape) if bias is None else bias
        residual = x.new_zeros(()) if third is None else third
        inputs = dy, x, weight, bias, residual = [
            _apart(each) for each in (dy, x, weight, bias, residual)
        ]
        firsts = _reference_gradients(dy, x, weight, bias, residual, saved, ctx.settings, third)
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
    *seconds, last = seconds
    seconds = *seconds, None, last  # None of `saved`
    seconds = [
        None if each is None else second for each, second in zip(given, seconds, strict=True)
    ]
    return *seconds, *[None] * (1 + len(ctx.settings))


def _reference_gradients(dy, x, weight, bias, residual, saved, settings, third):
    """Return the gradients with respect to x, weight, bias and residual, by PyTorch's formulas."""
    y = reference(x, weight, bias, saved, settings)
    activate, dv = find_activation(settings.core_activation()), dy
    by_result = third is not None and settings.keeps_result()
    if by_result:  # `residual` is the result: it decides a factor of dy, which is constant
        result = third.detach().requires_grad_()
        dv = dy * torch.autograd.grad(activate(result).sum(), result)[0]
    else:
        y = activate(y + residual)
    firsts = torch.autograd.grad(
        y,
        (x, weight, bias, residual),
        dv,
        create_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return (*firsts[:3], dv) if by_result else firsts


def _apart(tensor):
    """Return a tensor with gradients of its own, which still lead to the given one's."""
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


def _row(saved, index, weight):
    """Return a row of what a batch norm saved, as the weight's dtype."""
    return saved.detach().view(kernels.SAVED_ROWS, -1)[index].to(weight.dtype)


def reference(x, weight, bias, saved, settings):
    """Return what PyTorch's own norm makes of the input."""
    norm, number, training, _, eps, *_ = settings
    if norm == "batch":
        running = None, None
        if not training:
            running = _row(saved, kernels.MEAN, weight), _row(saved, kernels.VAR, weight)
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
