"""Batch normalization by the textbook, to compare cybn with.

Nothing here is fast or clever. The channel axis is moved last, so that everything of shape ``(C,)``
broadcasts; all other axes are summed over. ``dtype`` is the precision of every intermediate and of
every result: ``np.float64``, or ``np.longdouble`` where the float64 result itself is judged.
"""

from typing import NamedTuple

import numpy as np


class Forward(NamedTuple):
    y: np.ndarray
    mean: np.ndarray
    var: np.ndarray  # biased, as the normalization uses it
    running_mean: np.ndarray | None
    running_var: np.ndarray | None


class Backward(NamedTuple):
    dx: np.ndarray
    dgamma: np.ndarray
    dbeta: np.ndarray


def forward(
    x,
    gamma=None,
    beta=None,
    running_mean=None,
    running_var=None,
    *,
    training=True,
    momentum=0.1,
    eps=1e-5,
    axis=1,
    dtype=np.float64,
):
    """Normalize x; the running arrays come back as new arrays, the given ones stay as they are."""
    x = _channels_last(x, axis, dtype)
    gamma, beta, running_mean, running_var, momentum, eps = (
        None if value is None else np.asarray(value, dtype)
        for value in (gamma, beta, running_mean, running_var, momentum, eps)
    )
    if training:
        mean, var = _moments(x)
        if running_mean is not None:
            n = _values_per_channel(x)
            running_mean = (1 - momentum) * running_mean + momentum * mean
            running_var = (1 - momentum) * running_var + momentum * var * n / (n - 1)
    else:
        mean, var = running_mean, running_var

    y = (x - mean) / np.sqrt(var + eps)
    if gamma is not None:
        y = y * gamma
    if beta is not None:
        y = y + beta
    return Forward(np.moveaxis(y, -1, axis), mean, var, running_mean, running_var)


def backward(dy, x, mean, var, gamma=None, *, training=True, eps=1e-5, axis=1, dtype=np.float64):
    """Gradients of ``sum(y * dy)``; mean and var are those that the forward pass used.

    In training mean and var depend on x, which gives dx its two further terms.
    """
    x = _channels_last(x, axis, dtype)
    dy = _channels_last(dy, axis, dtype)
    gamma = np.ones(x.shape[-1], dtype) if gamma is None else np.asarray(gamma, dtype)
    rows = tuple(range(x.ndim - 1))

    std = np.sqrt(np.asarray(var, dtype) + np.asarray(eps, dtype))
    x_hat = (x - mean) / std
    dgamma = (dy * x_hat).sum(axis=rows)
    dbeta = dy.sum(axis=rows)
    dx_hat = dy * gamma
    dx = dx_hat / std
    if training:
        through_mean = dx_hat.mean(axis=rows)
        through_var = x_hat * (dx_hat * x_hat).mean(axis=rows)
        dx = (dx_hat - through_mean - through_var) / std
    return Backward(np.moveaxis(dx, -1, axis), dgamma, dbeta)


def _channels_last(array, axis, dtype):
    return np.moveaxis(np.asarray(array, dtype), axis, -1)


def _values_per_channel(x):
    return x.size // x.shape[-1]


def _moments(x):
    """Mean and biased variance of every channel, in two passes."""
    rows = tuple(range(x.ndim - 1))
    mean = x.mean(axis=rows)
    var = ((x - mean) ** 2).mean(axis=rows)
    return mean, var
