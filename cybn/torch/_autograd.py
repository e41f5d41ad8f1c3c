"""How a norm is called: without the dispatcher where that will do, as its operators cost twice."""

import torch
from torch.autograd import forward_ad

from .._normalize import Arrays
from . import _operators, _recipes
from ._arrays import (
    DTYPES,
    NotPlainError,
    dtype_beside,
    forward,
    gradients,
    is_plain,
    known_arrays,
    overlap_themselves,
    store_copies,
)
from ._plans import Settings, is_taken, parameters_of, plan_of


class _Norm(torch.autograd.Function):
    """A norm and its gradients; the second ones are those of the operator.

    It has no `setup_context`, which would cost 15 us a call.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, residual, arrays, plan):
        y = forward(x, residual, arrays, plan)
        ctx.plan, ctx.saved = plan, arrays.saved
        tensors = x, weight, bias, residual, y, plan.settings
        ctx.save_for_backward(*_operators.tensors_for_backward(*tensors))
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, bias, third = ctx.saved_tensors
        plan, needed = ctx.plan, ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():
            tensors = x, weight, bias, torch.from_numpy(ctx.saved), third
            results = _operators.norm_backward(dy, tensors, plan.settings, needed)
        else:
            like = _operators.like_parameters(x, weight, bias)
            results = gradients(dy, x, like, third, ctx.saved, plan, needed)
        return *results, None, None


# Without what `Function.apply` does for functorch, which never gets here.
_apply = super(torch.autograd.Function, _Norm).apply


def normalize(x, weight, bias, running_mean, running_var, residual, settings, batches=None):
    """Normalize by the shortest road that will do; return None where the norm is PyTorch's.

    `settings` are a plain tuple of those of `Settings`. `batches` is a tensor that counts the
    batches of the running statistics, or None.
    """
    others = weight, bias, running_mean, running_var
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return _by_operator(x, others, residual, settings, batches)
    if _is_transformed() or not _are_plain(x, residual):
        return None
    plan, dtype = plan_of(x.shape, x.stride(), settings), x.dtype
    updated = running_mean is not None and settings[2]
    if plan is None or (updated and overlap_themselves(running_mean, running_var)):
        return None
    if dtype.itemsize == 2:
        dtype = dtype_beside(x, others)
    try:
        arrays = Arrays(None, None, *known_arrays(others, dtype, plan.parameters))
    except NotPlainError:
        return None
    if batches is not None:
        _count(batches)
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
        or (residual is not None and residual.requires_grad)
    ):
        y = _apply(x, weight, bias, residual, arrays, plan)
        if _recipes.contexts and residual is None:
            _recipes.remember(y, x, weight, bias, plan.settings)
    else:
        y = forward(x, residual, arrays, plan)
    if updated:
        store_copies((running_mean, running_var), arrays)
        torch._C._increment_version((running_mean, running_var))
    return y


def _count(batches):
    """Add 1 to a counter; PyTorch's `add_` takes as long as the norm of a small input."""
    try:
        if batches.is_inference():  # PyTorch says where that is an error
            raise NotPlainError
        (array,) = known_arrays((batches,), batches.dtype, ())
    except NotPlainError:
        batches.add_(1)
        return
    array[0] += 1
    torch._C._increment_version((batches,))


def _by_operator(x, others, residual, settings, batches):
    """As `normalize`, by an operator that compilers and dispatch modes know."""
    compiling, exporting = torch.compiler.is_compiling(), torch.compiler.is_exporting()
    if (
        (exporting if compiling else _is_transformed())
        or not _are_plain(x, residual)
        or not is_taken(x.shape, *settings)
    ):
        return None
    dtype, shape = dtype_beside(x, others), parameters_of(x.shape, *settings[:2])
    if not all(each is None or is_plain(each, dtype, shape) for each in others):
        return None
    if batches is not None:
        batches.add_(1)
    return _operators.norm(x, *others, residual, Settings(*settings))


def _are_plain(x, residual):
    """Whether x is such as cybn takes, and a residual like it."""
    dtype, shape = x.dtype, x.shape
    return (
        dtype in DTYPES
        and is_plain(x, dtype, shape)
        and (residual is None or is_plain(residual, dtype, shape))
    )


def _is_transformed():
    """Whether functorch, forward mode or `torch.jit.trace` follow what is done."""
    return (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._is_tracing()
    )
