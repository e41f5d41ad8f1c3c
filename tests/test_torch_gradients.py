"""First, second and third derivatives of cybn.torch's functions."""

import itertools

from torch_peer import channels_last, torch

import pytest
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.testing import assert_close

import cybn.torch


def parameter(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


RUNNING = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5
NORMS = {  # by whether they need an image, and whether they take beta
    "batch, training": lambda x, w, b: cybn.torch.batch_norm(x, None, None, w, b, True),
    "batch, inference": lambda x, w, b: cybn.torch.batch_norm(x, *RUNNING, w, b),
    "group": lambda x, w, b: cybn.torch.group_norm(x, 2, w, b),
    "instance": lambda x, w, b: cybn.torch.instance_norm(x, None, None, w, b),
}
IMAGES = {"NC": (6, 4), "NCL": (3, 4, 2), "NCHW": (2, 4, 2, 2), "NHWC": (2, 4, 2, 2)}


@pytest.mark.parametrize("affine", ["gamma and beta", "gamma", "beta", "neither"])
@pytest.mark.parametrize("layout", IMAGES)
@pytest.mark.parametrize("norm", NORMS)
def test_gradients_of_channels(norm, layout, affine):
    if norm == "instance" and layout == "NC":
        pytest.skip("there is no such norm")
    x = parameter(*IMAGES[layout])
    check_gradients(NORMS[norm], channels_last(x) if layout == "NHWC" else x, affine, (4,))


@pytest.mark.parametrize("affine", ["gamma and beta", "gamma", "beta", "neither"])
@pytest.mark.parametrize("shape", [(3,), (4, 3)])
def test_gradients_of_layer_norm(shape, affine):
    norm = lambda x, w, b: cybn.torch.layer_norm(x, shape, w, b)  # noqa: E731
    check_gradients(norm, parameter(5, 4, 3), affine, shape)


@pytest.mark.parametrize("affine", ["gamma", "neither"])
@pytest.mark.parametrize("shape", [(3,), (4, 3)])
def test_gradients_of_rms_norm(shape, affine):
    norm = lambda x, w, b: cybn.torch.rms_norm(x, shape, w, 1e-3)  # noqa: E731
    check_gradients(norm, parameter(5, 4, 3), affine, shape)


def check_gradients(norm, x, affine, shape):
    w = parameter(*shape) if "gamma" in affine else None
    b = parameter(*shape) if "beta" in affine else None
    assert gradcheck(norm, (x, w, b))
    assert gradgradcheck(norm, (x, w, b))


def test_third_derivatives():
    x = parameter(3, 4)
    (first,) = torch.autograd.grad(
        cybn.torch.layer_norm(x, (4,)).pow(3).sum(), x, create_graph=True
    )
    (second,) = torch.autograd.grad(first.pow(2).sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), x)
    (first,) = torch.autograd.grad(F.layer_norm(x, (4,)).pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), x, create_graph=True)
    assert_close(third, torch.autograd.grad(second.sum(), x)[0])


def test_a_penalty_has_the_bits_of_the_first_gradient():
    x, w = torch.randn(8, 4, requires_grad=True), torch.randn(4, requires_grad=True)
    gradients = [
        torch.autograd.grad(
            cybn.torch.batch_norm(x, None, None, w, None, True).pow(2).sum(), (x, w), create_graph=c
        )
        for c in (False, True)
    ]
    assert all(map(torch.equal, *gradients))


def test_a_parameter_that_comes_from_the_input():
    """The second derivative does not count the road from x to gamma twice."""
    x = parameter(6, 4)

    def norm(function, x):
        w = x.mean(0)
        return function(x, None, None, w, None, True).pow(2).sum()

    seconds = []
    for function in (cybn.torch.batch_norm, F.batch_norm):
        (first,) = torch.autograd.grad(norm(function, x), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.pow(2).sum(), x)[0])
    assert_close(*seconds)


ACTIVATIONS = [None, "relu", "relu6", ("leaky_relu", 0.2), "hardswish", "silu"]


def activated(x, residual, w, b, activation):
    """What is fused, one after the other by PyTorch."""
    y = F.batch_norm(x, None, None, w, b, True)
    y = y if residual is None else y + residual
    name, *rest = activation if isinstance(activation, tuple) else (activation,)
    return y if name is None else getattr(F, name)(y, *rest)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("added", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_residual_and_activation(activation, added, layout):
    x, residual, w, b = parameter(2, 4, 2, 2), parameter(2, 4, 2, 2), parameter(4), parameter(4)
    x = channels_last(x) if layout == "NHWC" else x
    residual = residual if added else None

    def fused(x, residual, w, b):
        given = x, None, None, w, b, True
        return cybn.torch.batch_norm(*given, residual=residual, activation=activation)

    y, expected = fused(x, residual, w, b), activated(x, residual, w, b, activation)
    assert_close(y, expected)
    assert y.stride() == x.stride()
    inputs = [each for each in (x, residual, w, b) if each is not None]
    dy = torch.randn_like(y)
    gradients = [torch.autograd.grad(each, inputs, dy) for each in (y, expected)]
    assert_close(*gradients, rtol=1e-9, atol=1e-9)
    assert gradients[0][0].stride() == x.stride()
    assert gradgradcheck(fused, (x, residual, w, b))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("added", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_what_is_asked_for_has_the_bits_of_all(layout, added, training):
    """Nothing else is computed, but that changes no bit."""
    x, w, b, residual = parameter(2, 4, 2, 2), parameter(4), parameter(4), parameter(2, 4, 2, 2)
    x = channels_last(x) if layout == "NHWC" else x
    dy = torch.randn_like(x)

    def results(needed):
        given = [each.detach().clone() for each in (x, w, b, residual)]
        for place in needed:
            given[place].requires_grad_()
        *tensors, other = given
        other = other if added else None
        options = {"residual": other, "activation": "relu"}
        y = cybn.torch.batch_norm(tensors[0], *RUNNING, *tensors[1:], training, 0.0, **options)
        y.backward(dy)
        return [each.grad for each in given]

    names = range(4 if added else 3)
    everything = results(set(names))
    for needed in (each for n in names for each in itertools.combinations(names, n + 1)):
        for place, gradient in enumerate(results(needed)):
            assert (gradient is not None) == (place in needed)
            assert gradient is None or torch.equal(gradient, everything[place])
