"""Between tensors and arrays: what cybn can read as it is, is not copied."""

import weakref
from typing import NamedTuple

import numpy as np
import torch
from ml_dtypes import bfloat16

from .. import _geometry
from .._backward import backward
from .._cache import Cache
from .._functional import batch_norm
from .._normalize import Arrays
from .._norms import group_norm, instance_norm, layer_norm, rms_norm
from .._settings import settings_of

DTYPES = torch.float32, torch.float64, torch.bfloat16, torch.float16
_parameters = {}  # by id: a weak reference, dtype and address, and the array


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
    """Return y as a tensor, and the Cache that `gradients` needs, which holds none of the others.

    In training the running tensors are written to, and nothing tells autograd. All members of a
    group take part, then and in `gradients`.
    """
    array, axis, strides = _in_c_order(x, settings.norm)
    gamma, beta = _parameter(weight), _parameter(bias)
    norm, number, training, momentum, eps, *_ = settings
    if norm == "batch":
        y, cache = batch_norm(
            array,
            gamma,
            beta,
            running_mean=_parameter(running_mean),
            running_var=_parameter(running_var),
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
    cache.x = cache._arrays.third = None
    return _as_tensor(y, x, strides), cache


def cache_of(x, like, saved, settings):
    """Return the Cache of `forward`, given the array that it saved; parameters are `like` this."""
    array, axis, _ = _in_c_order(x, settings.norm)
    geometry = _find_geometry(array.shape, axis, settings)
    parameter = np.empty(geometry.parameters, _as_array(like).dtype)
    arrays = Arrays(None, None, parameter, parameter, saved=saved)
    return Cache(None, arrays, geometry, _kernel_settings(settings), geometry.values)


def gradients(dy, x, cache, third, settings, needed):
    """Return dx, dweight, dbias and dresidual as tensors; None for what there is not.

    `third` is the residual, if there is one, or instead the result if `settings.keeps_result()`.
    `needed` are dx, dweight, dbias and dresidual, if they are.
    """
    array, axis, strides = _in_c_order(x, settings.norm)
    kept, group = cache._arrays, cache._group
    gamma, beta = kept.gamma if needed[1] else None, kept.beta if needed[2] else None
    arrays = Arrays(None, None, gamma, beta, counts=kept.counts, saved=kept.saved)
    if third is not None:
        arrays.third = _in_order_of(third, axis)
    cache = Cache(array, arrays, cache._geometry, cache._settings, cache.count)
    cache._group, cache._residual_dtype = group, array.dtype
    results = backward(_in_order_of(dy, axis), cache)
    dx, dweight, dbias = results
    dresidual = results.dresidual
    return (
        _as_tensor(dx, x, strides),
        None if dweight is None else _from_array(dweight),
        None if dbias is None else _from_array(dbias),
        None if dresidual is None else _as_tensor(dresidual, x, strides),
    )


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
    """Return an array of the same memory. NumPy's bfloat16 is that of ml_dtypes."""
    if tensor.dtype is torch.bfloat16:
        return tensor.detach().resolve_neg().view(torch.uint16).numpy().view(bfloat16)
    return tensor.numpy(force=True)


def _parameter(tensor):
    """Return the array of a tensor that many calls have in common, or None."""
    if tensor is None:
        return None
    known = _parameters.get(id(tensor))
    if known is not None:
        reference, dtype, address, array = known
        if (
            reference() is tensor
            and dtype is tensor.dtype
            and address == tensor.data_ptr()
            and array.shape == tensor.shape
            and tensor.is_contiguous()
        ):
            return array
    array, key, address = _as_array(tensor), id(tensor), tensor.data_ptr()
    if array.__array_interface__["data"][0] == address:  # it is no copy
        reference = weakref.ref(tensor, lambda _: _parameters.pop(key, None))
        _parameters[key] = reference, tensor.dtype, address, array
    return array


def _from_array(array):
    """Return a tensor of the same memory, which is no view of another tensor."""
    if array.dtype != bfloat16:
        return torch.from_numpy(array)
    bits = torch.from_numpy(array.view(np.uint16))
    return torch.empty(0, dtype=torch.bfloat16).set_(bits.untyped_storage(), 0, bits.shape)


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
    return _as_array(x.contiguous()), 1, None


def _as_tensor(array, x, strides):
    """Return an array from C order as a tensor like x: not a view, so that it can be changed."""
    tensor = _from_array(array)
    if strides is not None and tensor.stride() != strides:
        tensor.as_strided_(x.shape, strides)
    return tensor
