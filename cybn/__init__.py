"""Exact, reproducible, fast batch normalization for NumPy arrays."""

from . import _level as _level  # first, before NumPy
from ._memory import set_kept_memory
from ._runtime import get_num_threads, num_threads, set_num_threads, show_config
from ._version import __version__
from .functional import Cache, Gradients, backward, forward
from .layers import BatchNorm, calibrate
from .moments import Moments, moments
from .norm_layers import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from .norms import group_norm, instance_norm, layer_norm, rms_norm, weight_standardize

__all__ = [
    "BatchNorm",
    "Cache",
    "Gradients",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "Moments",
    "RMSNorm",
    "__version__",
    "backward",
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
