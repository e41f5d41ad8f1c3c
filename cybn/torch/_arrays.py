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
from ._plans import by_channel

DTYPES = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.bfloat16: np.dtype(bfloat16),
    torch.float16: np.dtype(np.float16),
}
_PLAIN = torch.Tensor, torch.nn.Parameter
_STRIDED = torch.strided
# By id: address, dtype, shape, array, and a weak reference that removes the entry.
_known = {}


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
        known = _known.get(id(tensor))  # there is none of None
        if known is not None:
            address, its_dtype, its_shape, array, _ = known
            # The array has a hold on its memory: what is at this address, is in it.
            if (
                tensor.data_ptr() == address
                and tensor.dtype is its_dtype is dtype
                and tensor.shape == its_shape == shape
                and tensor.is_contiguous()
            ):
                arrays.append(array)
                continue
        arrays.append(None if tensor is None else _new_array(tensor, dtype, shape))
    return arrays


def _new_array(tensor, dtype, shape):
    """Return a tensor as an array of one dimension, which is known as long as the tensor lives."""
    if not is_plain(tensor, dtype, shape) or tensor.is_neg():
        raise NotPlainError
    array, key, address = as_array(tensor.contiguous()).reshape(-1), id(tensor), tensor.data_ptr()
    if _address(array) == address:  # it is no copy
        reference = weakref.ref(tensor, lambda _: _known.pop(key, None))
        _known[key] = address, dtype, tuple(shape), array, reference
    return array


def _address(array):
    return array.__array_interface__["data"][0]


def overlap_themselves(*tensors):
    """Whether places of a tensor share memory: then nobody can write to it as to others."""
    for tensor in tensors:
        if not tensor.is_contiguous() and torch._debug_has_internal_overlap(tensor) == 1:
            return True
    return False


def store_copies(tensors, arrays):
    """Store the running statistics that `forward` has written to copies of tensors."""
    for tensor, array in zip(tensors, (arrays.running_mean, arrays.running_var), strict=True):
        if not tensor.is_contiguous():
            with torch.no_grad():
                tensor.copy_(from_array(array, tensor.dtype))


def forward(x, residual, arrays, plan):
    """Return y as a tensor; `gradients` needs what is in ``arrays.saved`` then.

    In training the running arrays are written to, and nothing tells autograd.
    """
    array = arrays.x = in_c_order(x, plan)
    y = arrays.out = empty_like(array)
    if residual is not None:
        arrays.third = in_c_order_of(residual, plan)
    allocate(arrays, plan.geometry)
    _run(kernels.forward, arrays, plan, (2 if residual is None else 3) * array.nbytes)
    return as_tensor(y, x.dtype, plan)


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
    """Run a kernel. It refuses arrays that are not aligned, and gets copies of these."""
    how = plan.geometry.layout, plan.kernel_settings, schedule(nbytes)
    if kernel(*how, arrays):
        return
    for name in ("x", "dy", "third", "gamma", "beta"):
        setattr(arrays, name, as_plain(getattr(arrays, name)))
    running = arrays.running_mean, arrays.running_var
    arrays.running_mean, arrays.running_var = copies = [as_plain(each) for each in running]
    if not kernel(*how, arrays):
        raise ValueError(
            "running_mean, running_var: expected tensors with memory of their own, got memory that "
            "another argument shares"
        )
    for array, copied in zip(running, copies, strict=True):
        if copied is not array and plan.settings.training:
            array[...] = copied


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
