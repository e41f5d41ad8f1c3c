"""The norms as one writes them in plain NumPy: the baseline, and the reference."""

import numpy as np

from bench.cells import EPS

# Of the largest value. Peers that sum in float32 lose three digits on the largest cells.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


def training(x, gamma, beta, axis):
    """Normalize by the batch's own statistics."""
    mean, invstd = statistics(x, axis)
    scale = invstd * _channelwise(gamma, x, axis)
    return (x - mean) * scale + _channelwise(beta, x, axis)


def inference(x, gamma, beta, mean, var, axis):
    """Normalize by the running statistics."""
    scale = gamma / np.sqrt(var + EPS)
    y = (x - _channelwise(mean, x, axis)) * _channelwise(scale, x, axis)
    return y + _channelwise(beta, x, axis)


def backward(dy, x, gamma, mean, invstd, axis):
    """Gradients of `training`: dx, dgamma, dbeta."""
    axes = _reduced(x, axis)
    xhat = (x - mean) * invstd
    dgamma = (dy * xhat).sum(axis=axes, keepdims=True)
    dbeta = dy.sum(axis=axes, keepdims=True)
    count = x.size // x.shape[axis]
    dx = _channelwise(gamma, x, axis) * invstd * (dy - (dbeta + xhat * dgamma) / count)
    return dx, dgamma.reshape(-1), dbeta.reshape(-1)


def statistics(x, axis):
    """Mean and 1 / sqrt(var + eps) of each channel; both broadcast against x."""
    axes = _reduced(x, axis)
    mean = x.mean(axis=axes, keepdims=True)
    return mean, 1 / np.sqrt(x.var(axis=axes, keepdims=True) + EPS)


def norm(x, gamma, beta, cell):
    """Normalize as the cell's norm says, each sample by its own statistics."""
    xhat = normalized(x, *norm_statistics(x, cell))
    return xhat * _channelwise(gamma, x, cell.axis) + _channelwise(beta, x, cell.axis)


def norm_backward(dy, x, gamma, mean, invstd, cell):
    """Gradients of `norm`: dx, dgamma, dbeta."""
    axes = _reduced(x, cell.axis)
    xhat = normalized(x, mean, invstd)
    rows = (cell.statistics, -1)
    dxhat = (dy * _channelwise(gamma, x, cell.axis)).reshape(rows)
    along = (dxhat * xhat.reshape(rows)).mean(axis=1, keepdims=True)
    dx = invstd * (dxhat - dxhat.mean(axis=1, keepdims=True) - xhat.reshape(rows) * along)
    return dx.reshape(x.shape), (dy * xhat).sum(axis=axes), dy.sum(axis=axes)


def norm_statistics(x, cell):
    """Mean and 1 / sqrt(var + eps) of the rows into which the cell's norm cuts x."""
    return statistics(x.reshape(cell.statistics, -1), 0)


def normalized(x, mean, invstd):
    """Return x by the statistics of its rows."""
    return ((x.reshape(len(mean), -1) - mean) * invstd).reshape(x.shape)


def reference(problem, direction):
    """What a system's results must agree with, in float64: (y,), or (dx, dgamma, dbeta)."""
    p = problem
    axis = p.cell.axis
    x = p.x.astype(np.float64, copy=False)
    if direction == "norm":
        return (norm(x, p.gamma, p.beta, p.cell),)
    if direction == "norm_backward":
        dy = p.dy.astype(np.float64, copy=False)
        return norm_backward(dy, x, p.gamma, *norm_statistics(x, p.cell), p.cell)
    if direction == "inference":
        return (inference(x, p.gamma, p.beta, p.running_mean, p.running_var, axis),)
    if direction == "training":
        return (training(x, p.gamma, p.beta, axis),)
    return backward(p.dy.astype(np.float64, copy=False), x, p.gamma, *statistics(x, axis), axis)


def error(results, references):
    """Largest difference, as a part of the largest value of its array."""
    pairs = list(zip(results, references, strict=True))
    if any(result.shape != expected.shape for result, expected in pairs):
        return float("inf")
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def _reduced(x, axis):
    """All axes but the channel's."""
    return tuple(i for i in range(x.ndim) if i != axis % x.ndim)


def _channelwise(values, x, axis):
    """One value a channel, in the shape that broadcasts against x."""
    return np.expand_dims(values, _reduced(x, axis))
