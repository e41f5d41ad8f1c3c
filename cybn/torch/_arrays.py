"""Between tensors and arrays: what cybn can read as it is, is not copied."""

import weakref

import numpy as np
import torch
from ml_dtypes import bfloat16
from numpy import empty  # a look-up less in each small call

from .._geometry import as_plain
from .._memory import empty_like
from .._normalize import Arrays, allocate, kernels
from .._runtime import schedule
from ._plans import by_channel, plan_of

DTYPES = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.bfloat16: np.dtype(bfloat16),
    torch.float16: np.dtype(np.float16),
}
_PLAIN = torch.Tensor, torch.nn.Parameter
_STRIDED = torch.strided
_known = {}  # by id: address, dtype, shape, the array, and a weak reference


class NotPlainError(Exception):
    """A tensor is not such as cybn takes."""


def is_plain(tensor, dtype, shape):
    """Whether a tensor has this dtype and shape, and its memory is there to be read."""
    return (
        tensor.dtype is dtype
        and type(tensor) in _PLAIN
        and tensor.is_cpu
        and tensor.layout is _STRIDED
        and tensor.shape == shape
    )


def dtype_beside(x, others):
    """Return the dtype that parameters and running statistics must have: x's, or float32."""
    dtype = x.dtype
    if dtype.itemsize == 2 and all(each is None or each.dtype is torch.float32 for each in others):
        return torch.float32
    return dtype


def known_arrays(tensors, dtype, shape):
    """Return tensors that many calls have in common as arrays of one dimension; None as None.

    Raise a NotPlainError if one of them is not `is_plain`.
    """
    arrays = []
    for tensor in tensors:
        known = None if tensor is None else _known.get(id(tensor))
        if known is not None:
            address, its_dtype, its_shape, array, _ = known
            if not (
                tensor.data_ptr() == address  # and the array keeps this memory from other tensors
                and tensor.dtype is its_dtype is dtype
                and tensor.shape == its_shape == shape
                and tensor.is_contiguous()
            ):
                known = None
        if known is None:
            array = None if tensor is None else _new_array(tensor, dtype, shape)
        arrays.append(array)
    return arrays


def _new_array(tensor, dtype, shape):
    """Return a tensor as an array of one dimension, which is known from now on."""
    if not is_plain(tensor, dtype, shape):
        raise NotPlainError
    array, key, address = as_array(tensor.contiguous()).reshape(-1), id(tensor), tensor.data_ptr()
    if array.__array_interface__["data"][0] == address:  # it is no copy
        reference = weakref.ref(tensor, lambda _: _known.pop(key, None))
        _known[key] = address, dtype, tuple(shape), array, reference
    return array


def store_copies(running, arrays):
    """Store what `forward` has written to copies of running statistics that are not contiguous."""
    with torch.no_grad():
        for tensor, array in zip(running, (arrays.running_mean, arrays.running_var), strict=True):
            if not tensor.is_contiguous():
                tensor.copy_(from_array(array, tensor.dtype).view(tensor.shape))


def forward(x, residual, arrays, plan):
    """Return y as a tensor. `arrays` are then what `gradients` needs.

    In training the running arrays are written to, and nothing tells autograd.
    """
    array = arrays.x = in_c_order(x, plan)
    y = arrays.out = empty_like(array)
    if residual is not None:
        arrays.third = in_c_order_of(residual, plan)
    allocate(arrays, plan.geometry)
    _run(kernels.forward, arrays, plan, (2 if residual is None else 3) * array.nbytes)
    return as_tensor(y, x.dtype, plan)


def forward_of(x, weight, bias, running_mean, running_var, residual, settings):
    """As `forward`, of tensors that have been checked; return the saved array, too."""
    plan = plan_of(x.shape, x.stride(), settings)
    others = weight, bias, running_mean, running_var
    known = known_arrays(others, dtype_beside(x, others), plan.parameters)
    arrays = Arrays(None, None, *known)
    return forward(x, residual, arrays, plan), arrays.saved


def gradients(dy, x, parameter, third, saved, plan, needed):
    """Return dx, dweight, dbias and dresidual as tensors; None for what is not needed.

    `saved` is the array of `forward`, and `parameter` a tensor like the weight or bias. `third` is
    the residual, if there is one, or instead the result if `Settings.keeps_result()`. `needed` are
    dx, dweight, dbias and dresidual, if they are.
    """
    dx_needed, dweight_needed, dbias_needed, dresidual_needed = needed
    geometry, shape, dtype = plan.geometry, plan.parameters, x.dtype
    array = in_c_order(x, plan)
    dx = empty_like(array) if dx_needed or dresidual_needed else None
    kind = DTYPES[parameter.dtype]
    dgamma = empty(plan.parameter_size, kind) if dweight_needed else None
    dbeta = empty(plan.parameter_size, kind) if dbias_needed else None
    arrays = Arrays(array, dx, dgamma, dbeta, dy=in_c_order_of(dy, plan), saved=saved)
    if third is not None:
        arrays.third = in_c_order_of(third, plan)
        arrays.dresidual = empty_like(array)
    if geometry.scratch_size:
        arrays.scratch = empty(geometry.scratch_size)
    _run(kernels.backward, arrays, plan, 3 * array.nbytes)
    return (
        as_tensor(dx, dtype, plan) if dx_needed else None,
        from_array(dgamma.reshape(shape), parameter.dtype) if dweight_needed else None,
        from_array(dbeta.reshape(shape), parameter.dtype) if dbias_needed else None,
        as_tensor(arrays.dresidual, dtype, plan) if dresidual_needed else None,
    )


def _run(kernel, arrays, plan, nbytes):
    """Run a kernel. What it refuses is not aligned: it gets copies of what it reads."""
    how = plan.geometry.layout, plan.kernel_settings, schedule(nbytes)
    if kernel(*how, arrays):
        return
    names = ["x", "dy", "third", "gamma", "beta"]
    if not plan.settings.training:
        names += ["running_mean", "running_var"]
    for name in names:
        setattr(arrays, name, as_plain(getattr(arrays, name)))
    if not kernel(*how, arrays):
        raise ValueError(
            "running_mean, running_var: expected tensors of aligned memory that no other argument "
            "shares, got others"
        )


def result_like(x, norm):
    """Return a tensor with the shape and strides of what `forward` makes of x."""
    if x.is_contiguous() or (by_channel(norm) and x.dim() > 2 and x.movedim(1, -1).is_contiguous()):
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def in_c_order(x, plan):
    """Return the tensor of a plan as an array in C order, with its channel axis where that is."""
    array = as_array(x.contiguous() if plan.copied else x)
    return array if plan.to_last is None else array.transpose(plan.to_last)


def in_c_order_of(tensor, plan):
    """Return a tensor of any strides as an array like that of `in_c_order`."""
    if plan.to_last is not None:
        tensor = tensor.permute(plan.to_last)
    return as_array(tensor.contiguous())


def as_tensor(array, dtype, plan):
    """Return an array from C order as a tensor like x: not a view, so that it can be changed."""
    tensor = from_array(array, dtype)
    if plan.strides is not None:
        tensor.as_strided_(plan.shape, plan.strides)
    return tensor


def as_array(tensor):
    """Return an array of the same memory. NumPy's bfloat16 is that of ml_dtypes."""
    if tensor.dtype is torch.bfloat16:
        return tensor.detach().resolve_neg().view(torch.uint16).numpy().view(bfloat16)
    return tensor.numpy(force=True)


def from_array(array, dtype):
    """Return a tensor of the same memory, which is no view of another tensor."""
    if dtype is not torch.bfloat16:
        return torch.from_numpy(array)
    bits = torch.from_numpy(array.view(np.uint16))
    return torch.empty(0, dtype=dtype).set_(bits.untyped_storage(), 0, bits.shape)
