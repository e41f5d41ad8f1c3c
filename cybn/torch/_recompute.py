"""Results of norms that are made again in backward, and not kept: the same bits, less memory."""

import weakref
from contextlib import contextmanager

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from .._normalize import kernels
from . import _arrays

contexts = []  # One entry for each `recompute` that is open, in any thread.
# By the address of the result's storage, which is nobody else's as long as the recipe lives.
_recipes = weakref.WeakValueDictionary()


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
    contexts.append(None)
    try:
        with saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        contexts.pop()


def remember(y, x, weight, bias, settings):
    """Let y, which has just been computed by autograd's norm, be recomputed where it is saved."""
    recipe = _Recipe(y, x, weight, bias, settings)
    _recipes[recipe.storage.cdata] = recipe
    y.grad_fn.register_prehook(_Holder(recipe))


class _Recipe:
    """How to compute a result again.

    It has copies of the parameters, which are small, and may change before backward.
    """

    def __init__(self, y, x, weight, bias, settings):
        self.storage = StorageWeakRef(y.untyped_storage())
        self.version, self.offset = y._version, y.storage_offset()
        self.dtype = y.dtype
        self.x = _Kept(x.detach())
        self.parameters = [
            each if each is None else each.detach().clone() for each in (weight, bias)
        ]
        self.saved, self.settings = y.grad_fn.saved, settings
        self.result = None  # From the first use of it in a backward pass to the norm's turn.

    def compute(self):
        """Return the result; the same tensor to all who ask in one backward pass."""
        y = self.result
        if y is None or y._version:
            x, running, settings = self.x.get(), (None, None), self.settings
            if settings.norm == "batch":
                rows = torch.from_numpy(self.saved).view(kernels.SAVED_ROWS, -1)
                running = rows[kernels.MEAN], rows[kernels.VAR]
                settings = settings._replace(training=False)
            y, _ = _arrays.forward(x, *self.parameters, *running, None, settings)
            self.result = y
        return y


class _Holder:
    """Keep a recipe until the norm's backward; it is then that of those who use the result."""

    def __init__(self, recipe):
        self._recipe, self._weak = recipe, weakref.ref(recipe)

    def __call__(self, _):
        recipe, self._recipe = self._weak(), None
        if recipe is not None:
            recipe.result = None


class _Kept:
    """A tensor that is kept, and must not change: hooks leave this check to us."""

    def __init__(self, tensor):
        self._tensor, self._version = tensor, None if tensor.is_inference() else tensor._version

    def get(self):
        if self._version is not None and self._tensor._version != self._version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: a tensor of shape {tuple(self._tensor.shape)} is at version "
                f"{self._tensor._version}; expected version {self._version} instead"
            )
        return self._tensor


class _View:
    """A result, or a view of it, that is computed when it is needed."""

    def __init__(self, recipe, tensor):
        self._recipe = recipe
        self._place = tensor.size(), tensor.stride(), tensor.storage_offset() - recipe.offset

    def get(self):
        return self._recipe.compute().as_strided(*self._place)


def _pack(tensor):
    if type(tensor) is torch.Tensor and tensor.layout is torch.strided and tensor.is_cpu:
        recipe = _recipes.get(tensor.untyped_storage()._cdata)
        if recipe and recipe.dtype is tensor.dtype and recipe.version == tensor._version:
            return _View(recipe, tensor)
    return _Kept(tensor)


def _unpack(packed):
    return packed.get()
