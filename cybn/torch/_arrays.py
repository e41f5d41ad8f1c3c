"""Between tensors and arrays: what cybn can read as it is, is not copied."""

from typing import NamedTuple

import numpy as np
import torch

from .. import _geometry
from .._backward import backward
from .._cache import Cache
from .._functional import batch_norm
from .._normalize import Arrays
from .._norms import group_norm, instance_norm, layer_norm, rms_norm
from .._settings import settings_of


class Settings(NamedTuple):
    """Which norm, and how: of plain values, as operators take them."""

    norm: str  # "batch", "instance", "group", "layer" or "rms"
    number: int  # of groups; of trailing dimensions in layer and RMS norm; or else 0
    training: bool  # statistics of the input, and not the running ones
    momentum: float
    eps: float
    activation: str | None = None
    slope: float = 0.0  # of the activation below 0, if it has one

    def keeps_result(self):
        """Whether with a residual the result is needed for the gradients, and not the residual."""
        return _kernel_settings(self).by_result


def by_channel(norm):
    """Whether a norm's parameters belong to channels, and not to the values of a row."""
    return norm not in ("layer", "rms")


def forward(x, weight, bias, running_mean, running_var, residual, settings, group=None):
    """Return y as a tensor, and the Cache, whose `_saved` is what `gradients` needs.

    In training the running tensors are written to, and nothing tells autograd. With a group,
    `gradients` needs the group and the Cache's `_counts`, too.
    """
    array, axis, strides = _in_c_order(x, settings.norm)
    gamma, beta = _as_array(weight), _as_array(bias)
    norm, number, training, momentum, eps, *_ = settings
    if norm == "batch":
        y, cache = batch_norm(
            array,
            gamma,
            beta,
            running_mean=_as_array(running_mean),
            running_var=_as_array(running_var),
            training=training,
            momentum=momentum,
            eps=eps,
            axis=axis,
            activation=core_activation(settings),
            residual=None if residual is None else _in_order_of(residual, axis),
            group=group,
        )
    elif norm == "instance":
        y, cache = instance_norm(array, gamma, beta, axis=axis, eps=eps)
    elif norm == "group":
        y, cache = group_norm(array, number, gamma, beta, axis=axis, eps=eps)
    elif norm == "layer":
        y, cache = layer_norm(array, gamma, beta, axis=_trailing(number), eps=eps)
    else:
        y, cache = rms_norm(array, gamma, axis=_trailing(number), eps=eps)
    return _as_tensor(y, x, strides), cache


def gradients(dy, x, saved, third, settings, needed, group=None, counts=None):
    """Return dx, dweight, dbias and dresidual as tensors; None for what there is not.

    `saved` is from `forward`; `third` is the residual, if there is one, or instead the result if
    `settings.keeps_result()`. `needed` are dx, dweight, dbias and dresidual, if they are.
    Of a group, whose members have `counts` values of each channel, all take part.
    """
    array, axis, strides = _in_c_order(x, settings.norm)
    geometry = _find_geometry(array.shape, axis, settings)
    dtype = np.float32 if array.itemsize == 2 else array.dtype
    like = np.empty(geometry.parameters, dtype)  # of which the shape and dtype are asked
    arrays = Arrays(None, None, *(like if each else None for each in needed[1:3]))
    arrays.saved, arrays.counts = saved, counts
    arrays.third = None if third is None else _in_order_of(third, axis)
    cache = Cache(array, arrays, geometry, _kernel_settings(settings), geometry.values)
    cache._group = group
    if third is not None:
        cache._residual_dtype = array.dtype
    results = backward(_in_order_of(dy, axis), cache)
    dweight, dbias = (each if each is None else torch.from_numpy(each) for each in results[1:])
    dresidual = results.dresidual
    dresidual = None if dresidual is None else _as_tensor(dresidual, x, strides)
    return _as_tensor(results.dx, x, strides), dweight, dbias, dresidual


def result_like(x, norm):
    """Return a tensor with the shape and strides of what `forward` makes of x."""
    if x.is_contiguous() or (by_channel(norm) and x.dim() > 2 and x.movedim(1, -1).is_contiguous()):
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _find_geometry(shape, axis, settings):
    if settings.norm == "batch":
        return _geometry.batch_geometry(shape, axis)
    if settings.norm == "instance":
        return _geometry.sample_geometry(shape, axis)
    if settings.norm == "group":
        return _geometry.sample_geometry(shape, axis, settings.number)
    return _geometry.trailing_geometry(shape, _trailing(settings.number))


def core_activation(settings):
    """Return an activation as cybn takes it."""
    name, slope = settings.activation, settings.slope
    return (name, slope) if name == "leaky_relu" else name


def _kernel_settings(settings):
    return settings_of(
        settings.training,
        centered=settings.norm != "rms",
        activation=core_activation(settings),
    )


def _trailing(number):
    return -1 if number == 1 else tuple(range(-number, 0))


def _as_array(tensor):
    if tensor is None:
        return None
    if tensor.dtype is not torch.bfloat16:
        return tensor.numpy(force=True)
    import ml_dtypes  # which PyTorch does without

    return tensor.detach().view(torch.int16).numpy(force=True).view(ml_dtypes.bfloat16)


def _in_order_of(tensor, axis):
    """Return a tensor as an array in the C order in which `_in_c_order` has its like."""
    return _as_array((tensor.movedim(1, -1) if axis == -1 else tensor).contiguous())


def _in_c_order(x, norm):
    """Return x as an array in C order, its channel axis there, and the strides of a result.

    The last are None where the result has C order, too.
    """
    array = _as_array(x)
    if array.flags.c_contiguous:
        return array, 1, x.stride()
    if array.ndim > 2 and by_channel(norm):
        last = array.transpose(0, *range(2, array.ndim), 1)
        if last.flags.c_contiguous:
            return last, -1, x.stride()
    return _as_array(x.detach().contiguous()), 1, None


def _as_tensor(array, x, strides):
    """Return an array from C order as a tensor like x: not a view, so that it can be changed."""
    if array.dtype.kind == "V":  # bfloat16
        memory = torch.from_numpy(array.view(np.int16)).untyped_storage()
        tensor = torch.empty(0, dtype=torch.bfloat16)
        tensor.set_(memory, 0, array.shape)
    else:
        tensor = torch.from_numpy(array)
    if strides is not None and tensor.stride() != strides:
        tensor.as_strided_(x.shape, strides)
    return tensor
