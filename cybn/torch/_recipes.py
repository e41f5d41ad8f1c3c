"""How results of norms are computed again in backward, instead of being kept until then."""

import weakref

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from .._normalize import Arrays, kernels
from ._arrays import as_array, forward
from ._plans import plan_of

contexts = []  # one entry for each `recompute` that is open, in any thread
# By the address of the result's storage, which is nobody else's as long as the recipe lives: that
# holds a weak reference.
_recipes = weakref.WeakValueDictionary()


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
            None if each is None else as_array(each.detach().clone()).reshape(-1)
            for each in (weight, bias)
        ]
        self.saved, self.settings = y.grad_fn.saved, settings
        self.result = None  # there from its first use in a backward pass to the norm's turn

    def compute(self):
        """Return the result; the same tensor to all who ask in one backward pass."""
        y = self.result
        if y is None or y._version:
            x, running, settings = self.x.get(), (None, None), self.settings
            if settings.norm == "batch":
                rows = self.saved.reshape(kernels.SAVED_ROWS, -1)
                running = rows[kernels.MEAN], rows[kernels.VAR]
                settings = settings._replace(training=False)
            plan = plan_of(x.shape, x.stride(), settings)
            y = self.result = forward(x, None, Arrays(None, None, *self.parameters, *running), plan)
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


def pack(tensor):
    """Return what autograd keeps instead of a tensor that a layer saves."""
    if type(tensor) is torch.Tensor and tensor.layout is torch.strided and tensor.is_cpu:
        recipe = _recipes.get(tensor.untyped_storage()._cdata)
        if recipe and recipe.dtype is tensor.dtype and recipe.version == tensor._version:
            return _View(recipe, tensor)
    return _Kept(tensor)


def unpack(packed):
    """Return the tensor that was packed."""
    return packed.get()
