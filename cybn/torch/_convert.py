"""Models with cybn's norms in place of PyTorch's."""

from torch import nn

from . import _modules

_NAMES = (
    *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm"),
    *("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LayerNorm", "RMSNorm"),
)
_OURS = {getattr(nn, name): getattr(_modules, name) for name in _NAMES}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def convert(model, *, fuse=False, filter_fn=None):
    """Let cybn compute the norms of a model."""
    return _change(model, _OURS, filter_fn)


def revert(model):
    """Undo `convert`."""
    return _change(model, _THEIRS, None)


def _change(model, classes, filter_fn):
    for name, module in model.named_modules():
        target = classes.get(type(module))
        if target is not None and (filter_fn is None or filter_fn(module, name)):
            module.__class__ = target
    return model
