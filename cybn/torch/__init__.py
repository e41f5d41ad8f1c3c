"""PyTorch's norms on the CPU by cybn: functions, modules, and `convert` for whole models."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "torch":
        raise
    raise ImportError(
        'cybn.torch: expected PyTorch to be installed: python -m pip install "cybn[torch]"'
    ) from None

from ._convert import convert, revert
from ._functional import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from ._modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchNormAct1d,
    BatchNormAct2d,
    BatchNormAct3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from ._recompute import recompute

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormAct1d",
    "BatchNormAct2d",
    "BatchNormAct3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "RMSNorm",
    "batch_norm",
    "convert",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "recompute",
    "revert",
    "rms_norm",
]
