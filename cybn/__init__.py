"""Exact, reproducible, fast batch normalization for NumPy arrays."""

from ._runtime import get_num_threads, num_threads, set_num_threads, show_config
from ._version import __version__
from .functional import Cache, Gradients, backward, forward
from .layers import BatchNorm
from .norms import group_norm, instance_norm, layer_norm, rms_norm, weight_standardize

__all__ = [
    "BatchNorm",
    "Cache",
    "Gradients",
    "__version__",
    "backward",
    "forward",
    "get_num_threads",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "num_threads",
    "rms_norm",
    "set_num_threads",
    "show_config",
    "weight_standardize",
]
