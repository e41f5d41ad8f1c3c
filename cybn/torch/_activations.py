"""The one table of activations, as PyTorch has them: functions, modules and methods."""

import torch
from torch import nn
from torch.nn import functional as F

_FUNCTIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "hardswish": F.hardswish,
    "silu": F.silu,
}
_SLOPE = 0.01  # PyTorch's default of leaky_relu, the only one with a parameter
_MODULES = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.Hardswish: "hardswish",
    nn.SiLU: "silu",
}
_CALLS = {function: name for name, function in _FUNCTIONS.items()} | {
    torch.relu: "relu",
    torch.relu_: "relu",
    F.relu_: "relu",
    F.leaky_relu_: "leaky_relu",
    "relu": "relu",
    "relu_": "relu",
}


def find_activation(activation):
    """Return a function for an activation as `batch_norm` takes it."""
    if activation is None:
        return _identity
    name, *parameters = activation if isinstance(activation, tuple) and activation else [activation]
    if name not in _FUNCTIONS or len(parameters) != (name == "leaky_relu"):
        raise ValueError(
            'activation: expected None, "relu", "relu6", "hardswish", "silu" or '
            f'("leaky_relu", slope), got {activation!r}'
        )
    function = _FUNCTIONS[name]
    return (lambda x: function(x, *parameters)) if parameters else function


def activation_of_module(module):
    """Return the activation that a module computes, or None."""
    name = _MODULES.get(type(module))
    return ("leaky_relu", module.negative_slope) if name == "leaky_relu" else name


def activation_of_call(target, arguments, options):
    """Return the activation that a call of a function, or a method of this name, is, or None.

    `arguments` are those after the input.
    """
    name = _CALLS.get(target)
    options = {key: value for key, value in options.items() if key != "inplace"}
    if name != "leaky_relu":
        return None if options or len(arguments) > 1 else name
    slope = arguments[0] if arguments else options.pop("negative_slope", _SLOPE)
    return None if options or len(arguments) > 2 else (name, slope)


def _identity(x):
    return x
