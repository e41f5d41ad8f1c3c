"""Whole networks, converted: the losses of PyTorch's, and the same bits each time."""

import copy
import sys
from pathlib import Path

from torch_peer import torch

import pytest

import cybn.torch

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from torch_networks import mobilenet_v2, resnet18, unet

STEPS = 20


@pytest.fixture(autouse=True)
def _threads_are_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def train(model, memory_format, *, steps=STEPS, threads=1, dtype=torch.float32):
    """Return the losses of some steps, as exact numbers; the model is left trained.

    Convolution keeps to one thread: the bits of PyTorch's depend on how many there are.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    model = model.to(dtype).to(memory_format=memory_format).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.002, momentum=0.9)
    images = torch.randn(8, 3, 64, 64, generator=generator)
    images = images.to(dtype).to(memory_format=memory_format)
    labels = torch.randint(10, (8,), generator=generator)
    losses = []
    with cybn.num_threads(threads):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.fixture(scope="module", params=[mobilenet_v2, resnet18], ids=lambda make: make.__name__)
def network(request):
    torch.manual_seed(0)
    return request.param(10)


FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("fuse", [False, True], ids=["converted", "fused"])
def test_losses_are_pytorchs(network, memory_format, fuse):
    """MobileNetV2 in float64: in float32 the second loss already depends on the memory format."""
    dtype = torch.float64 if "ReLU6" in repr(network) else torch.float32
    theirs, ours = copy.deepcopy(network), cybn.torch.convert(copy.deepcopy(network), fuse=fuse)
    expected = train(theirs, memory_format, dtype=dtype)
    assert train(ours, memory_format, dtype=dtype) == pytest.approx(expected, abs=1e-4)
    assert expected[-1] < expected[0] - 0.1

    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=dtype).to(memory_format=memory_format)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(images), ours.eval()(images))


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
def test_the_same_bits_each_time(network, memory_format):
    runs = []
    for threads in (1, 1, 2):
        model = cybn.torch.convert(copy.deepcopy(network))
        losses = train(model, memory_format, steps=5, threads=threads)
        runs.append((losses, model.state_dict()))
    for losses, state in runs[1:]:
        assert losses == runs[0][0]
        assert all(torch.equal(state[name], value) for name, value in runs[0][1].items())


def test_a_network_that_joins_its_inputs():
    torch.manual_seed(0)
    model, x = unet(), torch.randn(2, 3, 32, 32)
    expected = model(x)
    for fuse in (False, True):
        y = cybn.torch.convert(copy.deepcopy(model), fuse=fuse)(x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
