"""The norms around batch normalization by the textbook, to compare cybn with.

As `reference`, and apart from it: nothing here is fast or clever. Each norm is a `View` of x: the
shape x is given, the axes of that shape over which one mean and one variance are taken, and the
shape in which gamma and beta broadcast against it. `forward` and `backward` know nothing else.
"""

from typing import NamedTuple

import numpy as np


class View(NamedTuple):
    shape: tuple
    over: tuple
    parameters: tuple
    centered: bool = True  # else the mean is taken as 0


class Forward(NamedTuple):
    y: np.ndarray
    mean: np.ndarray  # this and var broadcast against x in the view's shape
    var: np.ndarray  # biased, as the normalization uses it


class Backward(NamedTuple):
    dx: np.ndarray
    dgamma: np.ndarray | None
    dbeta: np.ndarray | None


def batch_view(shape, axis=1):
    """One statistic for each place along one axis, or along several."""
    kept = _positions(axis, len(shape))
    return View(shape, _without(kept, len(shape)), _lengths_at(kept, shape))


def conditional_view(shape, axis=1):
    """Batch norm with gamma and beta of shape (N, C)."""
    return batch_view(shape, axis)._replace(parameters=_lengths_at((0, axis % len(shape)), shape))


def layer_view(shape, axis=-1):
    over = _positions(axis, len(shape))
    return View(shape, over, _lengths_at(over, shape))


def rms_view(shape, axis=-1):
    return layer_view(shape, axis)._replace(centered=False)


def instance_view(shape, axis=1):
    channels = axis % len(shape)
    return View(shape, _without((0, channels), len(shape)), _lengths_at((channels,), shape))


def adaptive_instance_view(shape, axis=1):
    """Instance norm with gamma and beta of shape (N, C)."""
    return instance_view(shape, axis)._replace(
        parameters=_lengths_at((0, axis % len(shape)), shape)
    )


def group_view(shape, num_groups, axis=1):
    """The channels become two axes, the groups and the channels of a group."""
    channels = axis % len(shape)
    of_a_group = shape[channels] // num_groups
    split = (*shape[:channels], num_groups, of_a_group, *shape[channels + 1 :])
    over = _without((0, channels), len(split))
    return View(split, over, _lengths_at((channels, channels + 1), split))


def weight_view(shape, axis=0):
    return batch_view(shape, axis)


def forward(
    view, x, gamma=None, beta=None, *, eps=1e-5, where=None, moments=None, dtype=np.float64
):
    """Normalize x, with the given (mean, var) or with its own over the values selected by where."""
    x, selected, shape = _prepared(view, x, where, dtype)
    mean, var = _moments(view, x, selected) if moments is None else moments
    y = (x - mean) / np.sqrt(var + np.asarray(eps, dtype))
    if gamma is not None:
        y = y * _parameter(view, gamma, dtype)
    if beta is not None:
        y = y + _parameter(view, beta, dtype)
    return Forward(np.where(selected, y, 0).reshape(shape), mean, var)


def backward(
    view,
    dy,
    x,
    mean,
    var,
    gamma=None,
    beta=None,
    *,
    eps=1e-5,
    where=None,
    constant=False,
    dtype=np.float64,
):
    """Gradients of ``sum(y * dy)``; with `constant`, mean and var do not depend on x."""
    x, selected, shape = _prepared(view, x, where, dtype)
    dy, _, _ = _prepared(view, dy, where, dtype)
    std = np.sqrt(var + np.asarray(eps, dtype))
    x_hat = np.where(selected, (x - mean) / std, 0)
    dx_hat = dy if gamma is None else dy * _parameter(view, gamma, dtype)
    dx = dx_hat
    if not constant:
        if view.centered:
            dx = dx - _mean(view, dx_hat, selected)
        dx = dx - x_hat * _mean(view, dx_hat * x_hat, selected)
    dx = np.where(selected, dx / std, 0)
    return Backward(
        dx.reshape(shape),
        None if gamma is None else sum_like(view, dy * x_hat, gamma),
        None if beta is None else sum_like(view, dy, beta),
    )


def _positions(axis, ndim):
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(position % ndim for position in axes)


def _without(axes, ndim):
    return tuple(position for position in range(ndim) if position not in axes)


def _lengths_at(axes, shape):
    return tuple(length if i in axes else 1 for i, length in enumerate(shape))


def _prepared(view, x, where, dtype):
    """x in the view's shape with 0 where it is not selected, the selection, and x's own shape."""
    shape = np.shape(x)
    selected = np.broadcast_to(True if where is None else where, shape).reshape(view.shape)
    return np.where(selected, np.asarray(x, dtype).reshape(view.shape), 0), selected, shape


def _parameter(view, values, dtype):
    return np.asarray(values, dtype).reshape(view.parameters)


def _mean(view, values, selected):
    """The mean over the selected values; the others are 0. A statistic of no values is 0, too."""
    count = selected.sum(axis=view.over, keepdims=True)
    return values.sum(axis=view.over, keepdims=True) / np.maximum(count, 1)


def _moments(view, x, selected):
    """Mean and biased variance, in two passes."""
    mean = _mean(view, x, selected) if view.centered else np.zeros((), x.dtype)
    return mean, _mean(view, np.where(selected, x - mean, 0) ** 2, selected)


def sum_like(view, values, parameter):
    """Sum over all the axes along which the parameter was broadcast."""
    axes = tuple(i for i, length in enumerate(view.parameters) if length == 1)
    return values.sum(axis=axes).reshape(np.shape(parameter))
