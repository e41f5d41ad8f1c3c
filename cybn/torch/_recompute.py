"""A context in which training needs less memory."""

from contextlib import contextmanager

from torch.autograd.graph import saved_tensors_hooks

from . import _recipes


@contextmanager
def recompute():
    """Let backward compute the results of norms again, instead of keeping them until then.

    A convolution or a linear layer keeps its input for backward. If that is the result of a norm,
    the norm's own input is kept, too. Within this context only the latter is: backward computes
    the result from it once more, when the first layer asks for it. The gradients have the same
    bits, because the result has.

    Put it around the forward pass; backward may be outside. ``@cybn.torch.recompute()`` decorates
    a function.

    Raises
    ------
    RuntimeError
        In backward, if the input of a norm, or another tensor that was saved within the context,
        has been changed in place in the meantime. PyTorch raises the same.

    Notes
    -----
    It works for all norms of `cybn.torch`, also in fused models, but not for results with a
    residual. It has no effect on what is not differentiated, and on norms that run in
    `torch.compile`, in `torch.utils.checkpoint` (which keeps even less) or are PyTorch's own.
    Results that have been changed in place are kept as they are.

    Autograd does not see changes through ``y.data`` or ``y.numpy()``. Do not make any to a norm's
    result within this context: layers that follow would get gradients for the unchanged result.

    It uses `torch.autograd.graph.saved_tensors_hooks`. PyTorch applies only the innermost of these
    (`save_on_cpu` is another), and refuses them in `torch.func`.

    Examples
    --------
    >>> import torch, cybn.torch
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 8, 3), cybn.torch.BatchNormAct2d(8), torch.nn.Conv2d(8, 8, 3)
    ... )
    >>> with cybn.torch.recompute():
    ...     loss = model(torch.randn(2, 3, 8, 8)).square().mean()
    >>> loss.backward()
    """
    _recipes.contexts.append(None)
    try:
        with saved_tensors_hooks(_recipes.pack, _recipes.unpack):
            yield
    finally:
        _recipes.contexts.pop()
