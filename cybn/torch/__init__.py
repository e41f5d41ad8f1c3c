"""PyTorch's norms on the CPU by cybn: functions, modules, and `convert` for whole models."""

try:
    import ml_dtypes as _ml_dtypes  # noqa: F401
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name not in ("ml_dtypes", "torch"):
        raise
    _name = {"ml_dtypes": "ml_dtypes", "torch": "PyTorch"}[_error.name]
    raise ImportError(
        f'cybn.torch: expected {_name} to be installed: python -m pip install "cybn[torch]"'
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
from ._sync import SyncBatchNorm, SyncBatchNormAct

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
    "SyncBatchNorm",
    "SyncBatchNormAct",
    "batch_norm",
    "convert",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "recompute",
    "revert",
    "rms_norm",
]
