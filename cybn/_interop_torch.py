"""from_torch: PyTorch's modules."""

import numpy as np

from ._batch_norm_layer import BatchNorm
from ._interop import as_values, kind_of, make_layer, refusal
from ._norm_layers import GroupNorm, InstanceNorm, LayerNorm, RMSNorm


def from_torch(module):
    """Return a layer that computes what a normalization of PyTorch does.

    A state dict has the arrays; this takes over eps, momentum and mode, too.

    Parameters
    ----------
    module : torch.nn.Module
        ``BatchNorm1d``, ``2d`` or ``3d``, ``SyncBatchNorm``, ``LayerNorm``, ``RMSNorm``,
        ``GroupNorm``, or ``InstanceNorm1d``, ``2d`` or ``3d``, on the CPU, of float32 or float64.

    Returns
    -------
    BatchNorm, LayerNorm, RMSNorm, GroupNorm or InstanceNorm
        With copies of its arrays, and in training if the module is.

    Raises
    ------
    TypeError
        If it is anything else, or has tensors of another dtype. A class made from one of these
        counts if it has their ``forward``.
    ValueError
        If a tensor is not on the CPU, or a setting has no counterpart.

    Notes
    -----
    - The channels are on axis 1, as in PyTorch.
    - With ``momentum=None`` PyTorch averages the statistics of batches, cybn pools all values. How
      many values a trained module has seen is not known, so the first batch of further training
      replaces its running statistics.
    - The ``eps=None`` of ``RMSNorm`` becomes the smallest step of its dtype.
    - A ``SyncBatchNorm`` becomes one of this process alone.

    Examples
    --------
    >>> import cybn, torch
    >>> module = torch.nn.BatchNorm2d(3, eps=1e-3)
    >>> bn = cybn.from_torch(module.eval())
    >>> bn.num_features, bn.eps, bn.training
    (3, 0.001, False)
    """
    kind = kind_of(module, "torch.nn.modules.", _KINDS, "forward")
    if kind is None:
        remedy = ": pass a batch through it first" if hasattr(module, "cls_to_become") else ""
        raise refusal("module", "PyTorch", _KINDS, module, remedy)
    layer = _KINDS[kind](module, gamma=_tensor(module, "weight"), beta=_tensor(module, "bias"))
    return layer.train(module.training)


def _tensor(module, name):
    """Return a parameter or buffer as an array, or None."""
    tensor = getattr(module, name, None)
    if tensor is not None and tensor.device.type != "cpu":
        raise ValueError(
            f"module.{name}: expected a tensor on the CPU, got one on {tensor.device}: "
            "pass module.cpu()"
        )
    return as_values(tensor, f"module.{name}")


def _batch_norm(module, **parameters):
    return _tracking(BatchNorm, module, module.momentum, parameters)


def _instance_norm(module, **parameters):
    momentum = 0.0 if module.momentum is None else module.momentum  # None: as PyTorch reads it
    return _tracking(InstanceNorm, module, momentum, parameters)


def _tracking(make, module, momentum, parameters):
    statistics = {name: _tensor(module, name) for name in ("running_mean", "running_var")}
    tracked = statistics["running_mean"] is not None
    if tracked != bool(module.track_running_stats):
        there = "a" if tracked else "no"
        raise ValueError(
            f"module.track_running_stats: expected {tracked}, as there is {there} running_mean, "
            f"got {module.track_running_stats}"
        )
    if tracked and module.num_batches_tracked is not None:
        statistics["num_batches_tracked"] = int(module.num_batches_tracked)
    parameters |= {"statistics": statistics, "track_running_stats": tracked}
    return make_layer(make, module.num_features, **parameters, momentum=momentum, eps=module.eps)


def _layer_norm(module, **parameters):
    return make_layer(LayerNorm, tuple(module.normalized_shape), **parameters, eps=module.eps)


def _rms_norm(module, gamma, beta):
    eps = module.eps
    if eps is None:
        eps = float(np.finfo(np.float32 if gamma is None else gamma.dtype).eps)
    return make_layer(RMSNorm, tuple(module.normalized_shape), gamma=gamma, eps=eps)


def _group_norm(module, **parameters):
    sizes = module.num_groups, module.num_channels
    return make_layer(GroupNorm, *sizes, **parameters, eps=module.eps)


_KINDS = {
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "BatchNorm3d": _batch_norm,
    "SyncBatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "GroupNorm": _group_norm,
    "InstanceNorm1d": _instance_norm,
    "InstanceNorm2d": _instance_norm,
    "InstanceNorm3d": _instance_norm,
}
