"""cybn.torch's functions of float16 and bfloat16; and parameters that change under it."""

import re

from torch_peer import leaf, torch

import pytest
from torch.nn import functional as F
from torch.testing import assert_close

import cybn.torch

MIXED = {  # what PyTorch takes: gamma and beta, and the running statistics
    "all of 16 bit": (None, None),
    "all of float32": (torch.float32, torch.float32),
    "statistics of float32": (torch.float32, None),
    "parameters of float32": (None, torch.float32),
    "float64": (torch.float64, torch.float64),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mixed", MIXED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_parameters_beside_16_bit(dtype, mixed, training):
    """What PyTorch refuses is refused alike; all else has dtypes as there, and is rounded once."""
    parameters, running = (each or dtype for each in MIXED[mixed])

    def make():
        torch.manual_seed(0)
        x = torch.randn(6, 5, 4, 4).to(dtype).contiguous(memory_format=torch.channels_last)
        mean, var = torch.randn(5).to(running), torch.rand(5).to(running)
        trained = [
            each.requires_grad_() for each in (x, *torch.randn(2, 5).to(parameters).unbind())
        ]
        return trained[0], mean, var, *map(leaf, trained[1:])

    given, others = make(), make()
    try:
        expected = F.batch_norm(*others, training)
    except RuntimeError as error:
        with pytest.raises(RuntimeError, match=re.escape(str(error))):
            cybn.torch.batch_norm(*given, training)
        return
    y = cybn.torch.batch_norm(*given, training)
    dy = torch.randn(y.shape).to(dtype)
    expected.backward(dy)
    y.backward(dy)
    assert y.is_contiguous(memory_format=torch.channels_last)
    exact = [leaf(each, torch.float64) for each in make()]
    reference = F.batch_norm(*exact, training)
    reference.backward(dy.double())
    results = [(y, expected, reference)]
    for several in zip(given, others, exact, strict=True):
        results.append([each.grad if each.requires_grad else each for each in several])
    for ours, theirs, true in results:
        assert ours.dtype == theirs.dtype
        info = torch.finfo(ours.dtype)
        assert ((ours - true).abs() <= info.eps / 2 * true.abs() + 1e-6).all()


def test_results_of_16_bit_are_changed_in_place():
    x = torch.randn(4, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    y = cybn.torch.batch_norm(x, None, None, training=True, activation="silu")
    y.mul_(2).sum().backward()
    assert x.grad.dtype == torch.bfloat16


def test_a_parameter_that_becomes_another():
    """The same tensor may get other values, other memory, strides and dtypes."""
    x, weight = torch.randn(6, 4), torch.nn.Parameter(torch.ones(4))
    expected = cybn.torch.layer_norm(x, (4,), weight)
    with torch.no_grad():
        weight.mul_(2)
    assert_close(cybn.torch.layer_norm(x, (4,), weight), 2 * expected)
    for memory in (torch.full((4,), 3.0), torch.tensor([3.0, 9.0] * 4)[::2]):
        weight.data = memory
        assert_close(cybn.torch.layer_norm(x, (4,), weight), 3 * expected)
    bits = torch.full((4,), 0x4040, dtype=torch.int16)  # 3 as bfloat16
    for dtype, value in ((torch.bfloat16, 3.0), (torch.float16, 2.125)):
        weight.data = bits.view(dtype)
        y = cybn.torch.layer_norm(x.to(dtype), (4,), weight)
        assert_close(y.float(), value * expected, rtol=0.02, atol=0.02)
