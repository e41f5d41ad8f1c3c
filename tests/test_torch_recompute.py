"""Results of norms that backward computes again: the same bits, and nothing silently wrong."""

import contextlib
import copy
import sys
import threading
from pathlib import Path

from torch_peer import torch

import numpy as np
import pytest
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import cybn.torch
from cybn.torch import _recipes

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from torch_networks import BasicBlock, InvertedResidual


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def block(norm=None):
    norm = norm or cybn.torch.BatchNormAct2d(8)
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.Conv2d(8, 4, 3))


def gradients(model, x, recomputing, call=None):
    """Return the gradients of the parameters and of x."""
    model, x = copy.deepcopy(model), x.detach().clone(memory_format=torch.preserve_format)
    x.requires_grad_()
    with cybn.torch.recompute() if recomputing else contextlib.nullcontext():
        y = model(x) if call is None else call(model, x)
        loss = y.square().sum()
    loss.backward()
    return [each.grad for each in (x, *model.parameters()) if each.grad is not None]


def check_same_bits(model, x, call=None):
    expected, got = (gradients(model, x, each, call) for each in (False, True))
    for one, other in zip(expected, got, strict=True):
        assert torch.equal(one, other)


def count_recomputed(monkeypatch):
    """Return a list that gets an entry whenever a result is computed again."""
    done, forward = [], _recipes.forward

    def counting(*given):
        done.append(given[-1].settings.norm)
        return forward(*given)

    monkeypatch.setattr(_recipes, "forward", counting)
    return done


NORMS = {
    "batch": lambda: cybn.torch.BatchNorm2d(8),
    "relu": lambda: cybn.torch.BatchNormAct2d(8),
    "relu6": lambda: cybn.torch.BatchNormAct2d(8, activation="relu6"),
    "silu": lambda: cybn.torch.BatchNormAct2d(8, activation="silu"),
    "hardswish": lambda: cybn.torch.BatchNormAct2d(8, activation="hardswish"),
    "leaky": lambda: cybn.torch.BatchNormAct2d(8, activation=("leaky_relu", 0.1)),
    "not affine": lambda: cybn.torch.BatchNormAct2d(8, affine=False),
    "inference": lambda: cybn.torch.BatchNormAct2d(8).eval(),
    "group": lambda: cybn.torch.GroupNorm(2, 8),
    "instance": lambda: cybn.torch.InstanceNorm2d(8, affine=True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_have_the_same_bits(norm, memory_format, dtype, monkeypatch):
    model = block(NORMS[norm]()).to(dtype).to(memory_format=memory_format)
    x = torch.randn(4, 3, 9, 7, dtype=dtype).to(memory_format=memory_format)
    done = count_recomputed(monkeypatch)
    check_same_bits(model, x)
    assert len(done) == 1


@pytest.mark.parametrize("norm", [cybn.torch.LayerNorm, cybn.torch.RMSNorm])
def test_rows(norm, monkeypatch):
    """A Linear saves a view of the result."""
    done = count_recomputed(monkeypatch)
    model = nn.Sequential(nn.Linear(5, 6), norm(6), nn.Linear(6, 2))
    check_same_bits(model, torch.randn(3, 4, 5))
    assert len(done) == 1


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize(
    "make", [lambda: BasicBlock(6, 8, 2), lambda: InvertedResidual(6, 6, 1, 4)]
)
def test_residual_blocks(make, fuse, monkeypatch):
    done = count_recomputed(monkeypatch)
    model = cybn.torch.convert(nn.Sequential(make(), nn.Flatten(), nn.LazyLinear(3)), fuse=fuse)
    x = torch.randn(4, 6, 8, 8)
    model(x)
    check_same_bits(model, x)
    assert len(done) >= fuse


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_results_have_the_same_bits(scale, training):
    """Of hostile values, too: an outlier, a constant channel, NaN, infinity, -0."""
    x = (scale * torch.randn(64, 9)).requires_grad_()
    with torch.no_grad():
        x[0, 0] *= 1e6
        x[:, 1], x[3, 2], x[4, 3], x[5, 4] = 3.0, np.nan, np.inf, -0.0
        x[:, 5] += 1e6 * scale
    weight, bias = torch.randn(9), torch.randn(9)
    running = torch.randn(9), torch.rand(9)
    for activation in (None, "relu", "relu6", "silu"):
        given = (*running, weight, bias, training)
        with cybn.torch.recompute():
            y = cybn.torch.batch_norm(x, *given, activation=activation)
            saved = _recipes.pack(y.detach())
        assert isinstance(saved, _recipes._View)
        expected, got = (each.detach().numpy().view(np.uint32) for each in (y, saved.get()))
        np.testing.assert_array_equal(got, expected)


def follow(tensor):
    """Return a function that says whether a tensor's memory is still there."""
    reference = StorageWeakRef(tensor.untyped_storage())
    return lambda: not reference.expired()


def test_the_result_is_not_kept():
    """Neither by the layer that saves it nor by the norm; and nothing is left by backward."""
    first, norm, last = block()
    x = torch.randn(2, 3, 8, 8)

    def forward():
        before = first(x)
        y = norm(before)
        return last(y).sum(), follow(before), follow(y)

    loss, _, is_kept = forward()
    assert is_kept()
    with cybn.torch.recompute():
        loss, input_is_kept, is_kept = forward()
    assert input_is_kept()
    assert not is_kept()
    loss.backward()  # `loss` stays
    assert not input_is_kept()
    assert not _recipes._recipes


def test_the_input_goes_with_the_result_if_there_is_no_backward():
    with cybn.torch.recompute():
        model = block()
        model(torch.randn(2, 3, 8, 8))
        assert not _recipes._recipes


def test_two_users_recompute_once(monkeypatch):
    done = count_recomputed(monkeypatch)

    def call(model, x):
        y = model[:2](x)
        return model[2](y) + model[2](y.flatten(2).view(y.shape)).mul(2)

    check_same_bits(block(), torch.randn(2, 3, 8, 8), call)
    assert len(done) == 1


def test_backward_twice():
    model = block()
    x = torch.randn(2, 3, 8, 8)
    with cybn.torch.recompute():
        loss = model(x).square().sum()
    given = list(model.parameters())
    once, twice = (torch.autograd.grad(loss, given, retain_graph=True) for _ in range(2))
    assert [recipe.result for recipe in _recipes._recipes.values()] == [None]  # freed, already
    assert all(map(torch.equal, once, twice))
    del loss
    assert not _recipes._recipes


def test_second_derivatives():
    def second(recomputing):
        model = block().double()
        x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
        with cybn.torch.recompute() if recomputing else contextlib.nullcontext():
            loss = model(x).square().sum()
        (dx,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), [x, *model.parameters()], allow_unused=True)

    torch.manual_seed(1)
    expected = second(False)
    torch.manual_seed(1)
    for one, other in zip(expected, second(True), strict=True):
        assert one is other is None or torch.equal(one, other)


def relu_behind(model, x):
    return model[2](model[1](model[0](x)).relu_())


def view_behind(model, x):
    """A view with an offset, which is saved because the weight has a gradient."""
    y = model[1](model[0](x)).flatten(1)
    return F.linear(y[:, 3:], model[2].weight.view(1, -1)[:, 3:])


def add_behind(model, x):
    y = model[1](model[0](x))
    y.view(-1).add_(1.0)
    return model[2](y)


def detached(model, x):
    y = model[1](model[0](x))
    y.detach().mul_(2.0)  # shares the version
    return model[2](y)


def parameters_change(model, x):
    """As beta is not needed by the norm's own backward, PyTorch allows this."""
    y = model[2](model[1](model[0](x)))
    with torch.no_grad():
        model[1].bias.add_(1.0)
    return y


@pytest.mark.parametrize(
    "call", [relu_behind, view_behind, add_behind, detached, parameters_change]
)
def test_what_comes_behind(call):
    model = block(cybn.torch.BatchNorm2d(8))
    check_same_bits(model, torch.randn(2, 3, 8, 8), call)


def test_inplace_after_saving_raises_or_is_right():
    """PyTorch has kept the result, and raises; computed again, it is what was saved."""
    model, x = block(cybn.torch.BatchNorm2d(8)), torch.randn(2, 3, 8, 8)

    def change(model, x):
        y = model[1](model[0](x))
        z = model[2](y)
        with torch.no_grad():
            y.add_(1.0)
        return z

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradients(model, x, False, change)
    expected = gradients(model, x, False)
    assert all(map(torch.equal, gradients(model, x, True, change), expected))


@pytest.mark.parametrize("recomputing", [False, True])
@pytest.mark.parametrize("changed", ["x", "the norm's input", "weight", "convolution's weight"])
def test_a_change_of_what_is_needed_raises(changed, recomputing):
    """Hooks switch PyTorch's check off: that of all saved tensors has to be made up for."""
    model = block()
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with cybn.torch.recompute() if recomputing else contextlib.nullcontext():
        before = model[0](x)
        loss = model[2](model[1](before)).sum()
    tensors = {
        "x": x,
        "the norm's input": before,
        "weight": model[1].weight,
        "convolution's weight": model[2].weight,
    }
    with torch.no_grad():
        tensors[changed].mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_changed_input_raises_if_only_the_result_is_needed():
    model = block()
    with cybn.torch.recompute():
        before = model[0](torch.randn(2, 3, 8, 8))
        loss = model[2](model[1](before)).sum()
    with torch.no_grad():
        before.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, model[2].weight)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant):
    call = lambda model, x: checkpoint(model, x, use_reentrant=reentrant)  # noqa: E731
    model, x = block(), torch.randn(2, 3, 8, 8)
    check_same_bits(model, x, call)
    expected = gradients(model, x, False)
    assert all(map(torch.equal, gradients(model, x, True, call), expected))

    inside = copy.deepcopy(model)
    inside.forward = cybn.torch.recompute()(inside.forward)
    x.requires_grad_()
    checkpoint(inside, x, use_reentrant=reentrant).square().sum().backward()
    assert torch.equal(x.grad, expected[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    model, x = block(), torch.randn(2, 3, 8, 8)
    expected = copy.deepcopy(model)(x)
    with mode(), cybn.torch.recompute():
        assert torch.equal(model(x), expected)
    assert not _recipes._recipes


def test_exceptions_close_the_context():
    with pytest.raises(ZeroDivisionError), cybn.torch.recompute(), cybn.torch.recompute():
        raise ZeroDivisionError
    assert not _recipes.contexts
    first, norm, last = block()
    y = norm(first(torch.randn(2, 3, 8, 8)))
    z, is_kept = last(y), follow(y)
    del y
    assert is_kept()
    assert z.requires_grad


def test_backward_in_another_thread():
    model, x = block(), torch.randn(2, 3, 8, 8)
    expected = gradients(model, x, False)[1:]
    with cybn.torch.recompute():
        loss = model(x).square().sum()
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    # PyTorch's convolution may round otherwise in another thread.
    assert_close(tuple(each.grad for each in model.parameters()), tuple(expected))


def test_threads_without_the_context_keep_their_results():
    first, norm, last = block()
    found = []

    def run():
        y = norm(first(torch.randn(2, 3, 8, 8)))
        is_kept, z = follow(y), last(y)
        del y
        found.append(is_kept() and z.requires_grad)

    with cybn.torch.recompute():
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert found == [True]


def test_results_can_be_stored(tmp_path):
    with cybn.torch.recompute():
        y = block()[:2](torch.randn(2, 3, 8, 8))
        torch.save(y, tmp_path / "y.pt")
    assert torch.equal(torch.load(tmp_path / "y.pt"), y)


def test_compiled():
    model, x = block(), torch.randn(2, 3, 8, 8)
    expected = gradients(model, x, False)
    compiled = lambda model, x: torch.compile(model, backend="aot_eager")(x)  # noqa: E731
    assert all(map(torch.equal, gradients(model, x, True, compiled), expected))
