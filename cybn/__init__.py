"""Exact, reproducible, fast batch normalization for NumPy arrays."""

from . import _level as _level  # first, before NumPy
from ._backward import backward
from ._batch_norm_layer import BatchNorm, calibrate
from ._cache import Cache, Gradients
from ._functional import batch_norm, forward
from ._layer import Layer
from ._memory import set_kept_memory
from ._moments import Moments, moments
from ._norm_layers import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from ._norms import group_norm, instance_norm, layer_norm, rms_norm, weight_standardize
from ._runtime import get_num_threads, num_threads, set_num_threads, show_config
from ._version import __version__

__all__ = [
    "BatchNorm",
    "Cache",
    "Gradients",
    "GroupNorm",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "Moments",
    "RMSNorm",
    "__version__",
    "backward",
    "batch_norm",
    "calibrate",
    "forward",
    "get_num_threads",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "moments",
    "num_threads",
    "rms_norm",
    "set_kept_memory",
    "set_num_threads",
    "show_config",
    "weight_standardize",
]
