"""Exact, reproducible, fast batch normalization for NumPy arrays."""

from importlib import import_module as _import_module

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
    "fold",
    "forward",
    "from_flax",
    "from_keras",
    "from_onnx",
    "from_torch",
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

TYPE_CHECKING = False  # as in typing: what a program needs once is imported when it is asked for
if TYPE_CHECKING:
    from ._fold import fold
    from ._interop_flax import from_flax
    from ._interop_keras import from_keras
    from ._interop_onnx import from_onnx
    from ._interop_torch import from_torch
else:
    _LATER = {
        "fold": "._fold",
        "from_flax": "._interop_flax",
        "from_keras": "._interop_keras",
        "from_onnx": "._interop_onnx",
        "from_torch": "._interop_torch",
    }

    def __getattr__(name):
        """Import the function of this name and keep it."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        function = getattr(_import_module(_LATER[name], __name__), name)
        globals()[name] = function
        return function

    def __dir__():
        """Return all names, also those that are not imported yet."""
        return sorted({*globals(), *_LATER})
