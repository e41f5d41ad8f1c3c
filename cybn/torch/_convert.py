"""Models with cybn's norms in place of PyTorch's."""

from torch import nn

from . import _modules, _sync
from ._fuse import fuse_norms, separate_norms

_NAMES = (
    *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm"),
    *("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LayerNorm", "RMSNorm"),
)
_OURS = {getattr(nn, name): getattr(_modules, name) for name in _NAMES}
_OURS[nn.SyncBatchNorm] = _sync.SyncBatchNorm
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
_BATCH_NORMS = _modules.BatchNorm1d, _modules.BatchNorm2d, _modules.BatchNorm3d
_BATCH_NORMS += (_sync.SyncBatchNorm,)


def convert(model, *, fuse=False, filter_fn=None):
    """Let cybn compute the norms of a model.

    It changes the modules' classes in place, and nothing else: parameters, buffers, hooks, names
    and what is shared stay as they are, so that optimizers and checkpoints remain valid, also for
    the model as it was. Subclasses of PyTorch's norms are left alone.

    Parameters
    ----------
    model : torch.nn.Module
        Any model, or a norm itself.
    fuse : bool
        Let a batch norm compute the addition and the activation behind it, too: where
        `torch.fx` can follow the module that they belong to, and nobody else uses what lies
        between. Where it cannot, a warning says so.
    filter_fn : callable, optional
        Is called with each norm and its name; those stay for which it returns False.

    Returns
    -------
    torch.nn.Module
        `model` itself.

    Warns
    -----
    UserWarning
        With the names of modules whose batch norms could not be fused, and why.

    Notes
    -----
    Fusing gives a module that calls batch norms a `forward` of its own, as an attribute of the
    instance. Convert before hooks are registered on activations or on containers, for what is fused
    does not call them. A pickled model comes back without, and computes the same. `revert` removes
    it.

    Examples
    --------
    >>> import torch, cybn.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    >>> type(cybn.torch.convert(model)[1])
    <class 'cybn.torch.BatchNorm1d'>
    """
    _change_classes(model, _OURS, filter_fn)
    if fuse:
        fuse_norms(model, _BATCH_NORMS)
    return model


def revert(model):
    """Undo `convert`, in place.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        `model` itself, with PyTorch's own norms.

    Examples
    --------
    >>> import torch, cybn.torch
    >>> type(cybn.torch.revert(cybn.torch.LayerNorm(8)))
    <class 'torch.nn.modules.normalization.LayerNorm'>
    """
    separate_norms(model)
    return _change_classes(model, _THEIRS, None)


def _change_classes(model, classes, filter_fn):
    for name, module in model.named_modules():
        target = classes.get(type(module))
        if target is not None and (filter_fn is None or filter_fn(module, name)):
            module.__class__ = target
    return model
