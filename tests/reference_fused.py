"""Activations and a residual behind a norm, by the textbook: what cybn's fused calls must equal.

``y = act(norm(x) + residual)``. Everything is in longdouble. `derivative` takes the result y where
that decides (relu, relu6, leaky_relu), and what was activated, v, elsewhere.
"""

import numpy as np
import reference

ACTIVATIONS = (None, "relu", "relu6", ("leaky_relu", 0.01), "hardswish", "silu")


def value(activation, v):
    """act(v)"""
    match activation:
        case None:
            return v
        case "relu":
            return np.where(v < 0, 0, v)
        case "relu6":
            return np.where(v < 0, 0, np.where(v > 6, 6, v))
        case ("leaky_relu", slope):
            return np.where(v < 0, v * np.longdouble(slope), v)
        case "hardswish":
            return np.where(v <= -3, 0, np.where(v >= 3, v, v * (v + 3) / 6))
        case "silu":
            return v / (1 + np.exp(-v))


def derivative(activation, v, y):
    """act'(v)"""
    match activation:
        case None:
            return np.ones_like(v)
        case "relu":
            return np.where(y <= 0, 0, 1)
        case "relu6":
            return np.where((y <= 0) | (y >= 6), 0, 1)
        case ("leaky_relu", slope):
            return np.where(y <= 0, np.longdouble(slope), 1)
        case "hardswish":
            return np.where(v <= -3, 0, np.where(v >= 3, 1, (2 * v + 3) / 6))
        case "silu":
            sigmoid = 1 / (1 + np.exp(-v))
            return sigmoid * (1 + v * (1 - sigmoid))


def run(case, activation, residual, y):
    """The exact y and gradients of a case, of which `y` are the stored results."""
    wide = np.longdouble
    running = case.running_mean, case.running_var
    forward = reference.forward(case.x, case.gamma, case.beta, *running, **case.options, dtype=wide)
    v = forward.y if residual is None else forward.y + residual.astype(wide)
    dv = case.dy.astype(wide) * derivative(activation, v, y.astype(wide))
    options = {name: case.options[name] for name in ("training", "eps", "axis")}
    gradients = reference.backward(
        dv, case.x, forward.mean, forward.var, case.gamma, **options, dtype=wide
    )
    return value(activation, v), *gradients, dv
