"""The short road of a norm: without the dispatcher, whose operators cost twice as much."""

import torch
from torch.autograd.graph import increment_version

from . import _arrays, _operators


class _Norm(torch.autograd.Function):
    """A norm and its gradients; the second ones are those of the operator.

    It has no `setup_context`, which would cost 15 us a call.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, settings):
        y, ctx.saved = _arrays.forward(x, weight, bias, running_mean, running_var, settings)
        ctx.settings = settings
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            saved = torch.from_numpy(ctx.saved)
            given = dy, x, weight, saved, ctx.settings, list(needed)
            return *_operators.norm_backward(*given), None, None, None
        dx, dweight, dbias = _arrays.gradients(dy, x, ctx.saved, ctx.settings, needed)
        return dx if needed[0] else None, dweight, dbias, None, None, None


# Without what `Function.apply` does for functorch, which never gets here.
_apply = super(torch.autograd.Function, _Norm).apply


def normalize(x, weight, bias, running_mean, running_var, settings):
    """Normalize tensors that have been checked, by the shortest road that will do."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return _operators.norm(x, weight, bias, running_mean, running_var, settings)
    given = x, weight, bias, running_mean, running_var, settings
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
    ):
        y = _apply(*given)
    else:
        y, _ = _arrays.forward(*given)
    if settings.training and running_mean is not None and not running_mean.is_inference():
        increment_version((running_mean, running_var))
    return y
