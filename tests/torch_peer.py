"""PyTorch, without which its tests skip, or fail where CYBN_TEST_PEERS is set; and its layouts."""

import os

import pytest

if os.environ.get("CYBN_TEST_PEERS"):
    import expecttest  # noqa: F401
    import torch
else:
    torch = pytest.importorskip("torch")
    pytest.importorskip("expecttest")


FUNCTIONS = ("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm")


def channels_last(x):
    """Return a tensor's values with its channels last in memory."""
    return x.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_(x.requires_grad)


def leaf(tensor, dtype=None):
    """Return a copy of a tensor with its strides, and gradients of its own."""
    if not isinstance(tensor, torch.Tensor):
        return tensor
    copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    copy.copy_(tensor.detach())
    copy = copy if dtype is None else copy.to(dtype)
    return copy.requires_grad_(tensor.requires_grad)


def same(a, b):
    """Whether two tensors have the same bits, and lie in memory in the same way."""
    return torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()
