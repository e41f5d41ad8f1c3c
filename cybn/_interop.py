"""What the adapters to other libraries share. They import none of them: they go by names."""

from inspect import signature

import numpy as np

from ._checks import FLOAT32, FLOAT64
from ._norm_layers import LayerNorm, RMSNorm

HAS_BIAS_OPTION = "bias" in signature(LayerNorm).parameters


def kind_of(layer, packages, kinds, method):
    """Return which of the kinds a layer is: the name of its class, or of one that it is made from.

    A class that was made from one of theirs counts only with their `method`, which computes.
    """
    for base in type(layer).__mro__:
        if base.__name__ in kinds and f"{base.__module__}.".startswith(packages):
            if getattr(type(layer), method) is getattr(base, method):
                return base.__name__
            break
    return None


def refusal(name, library, kinds, layer, remedy=""):
    """Return the TypeError about a layer that is none of these kinds."""
    kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
    return TypeError(f"{name}: expected one of {library}'s {', '.join(kinds)}, got {kind}{remedy}")


def as_values(value, name):
    """Return another library's array of float32 or float64 as NumPy's, or None."""
    if value is None:
        return None
    dtype = str(getattr(value, "dtype", type(value).__name__))
    if not ("float32" in dtype or "float64" in dtype):
        raise TypeError(f"{name}: expected float32 or float64, got {dtype}: convert it to float32")
    try:
        return np.asarray(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected values that NumPy can read, got: {error}") from None


def trailing(axes, ndim, name):
    """Return how many trailing axes these are, of an array of so many dimensions if that is known.

    Raise if they are others.
    """
    axes = axes if isinstance(axes, (list, tuple)) else [axes]
    from_end = sorted(axis - (ndim or 0) if axis >= 0 else axis for axis in axes)
    if from_end != list(range(-len(axes), 0)):
        raise ValueError(f"{name}: expected the trailing axes, as -1 or (-2, -1), got {axes}")
    return len(axes)


def single(axis, name):
    """Return the one axis of the channels."""
    (axis, *others) = axis if isinstance(axis, (list, tuple)) else [axis]
    if others:
        raise ValueError(f"{name}: expected one axis, got {(axis, *others)}")
    return axis


def make_layer(make, *sizes, gamma, beta=None, statistics=None, training=False, **options):
    """Return a layer of cybn with these parameters, or None, and running statistics.

    Parameters
    ----------
    make : type
        The layer's class, which is given the sizes and options.
    statistics : dict, optional
        Running mean, variance and perhaps the count of batches, as in a state dict.
    """
    state = {"weight": gamma, "bias": beta} | (statistics or {})
    state = {key: value for key, value in state.items() if value is not None}
    if gamma is None and beta is not None:
        state["weight"] = np.ones_like(beta)
    if gamma is not None and beta is None and make is not RMSNorm:
        options, state = _without_beta(options, state)
    floats = [value.dtype for value in state.values() if np.ndim(value)]
    dtype = FLOAT64 if FLOAT64 in floats else FLOAT32
    layer = make(*sizes, affine="weight" in state, dtype=dtype, **options)
    layer.load_state_dict(state)
    return layer.train(training)


def _without_beta(options, state):
    """Return options and state of a layer with a gamma and no beta."""
    if HAS_BIAS_OPTION:
        return options | {"bias": False}, state
    return options, state | {"bias": np.zeros_like(state["weight"])}
