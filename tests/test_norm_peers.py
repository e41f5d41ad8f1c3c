"""PyTorch, run in float64, as a peer of every norm and of its layer."""

import copy
import math

import norms
import numpy as np
import pytest
from checks import assert_close
from hypothesis import given, settings
from norms import Results, norm_cases, run_cybn
from numpy.testing import assert_allclose, assert_array_equal

import cybn

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # its OpenMP pool and ours would fight for the cores
functional = torch.nn.functional

# float32 results are rounded once (6e-8), float64 ones are the work of some dozens of roundings,
# here and in PyTorch.
TOLERANCES = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-11}


def tensor(array, requires_grad=True):
    if array is None:
        return None
    return torch.tensor(array, dtype=torch.float64, requires_grad=requires_grad)


class Rows:
    """x as PyTorch's batch norm takes it: the selected places by channels."""

    def __init__(self, case):
        axis = case.options.get("axis", case.norm.axis)
        self.axes = axis if isinstance(axis, tuple) else (axis,)
        self.last = range(-len(self.axes), 0)
        shape = np.moveaxis(case.x, self.axes, self.last).shape
        self.shape, self.channels = shape, math.prod(shape[-len(self.axes) :])
        where = np.broadcast_to(True if case.where is None else case.where, case.x.shape)
        self.selected = self.flat(where)[:, 0]

    def flat(self, array):
        return np.moveaxis(array, self.axes, self.last).reshape(-1, self.channels)

    def there(self, array):
        return self.flat(array)[self.selected]

    def back(self, rows):
        whole = np.zeros((len(self.selected), self.channels))
        whole[self.selected] = rows
        return np.moveaxis(whole.reshape(self.shape), self.last, self.axes)

    def per_sample(self, parameter):
        return parameter.repeat_interleave(len(self.selected) // len(parameter), dim=0)


class ChannelsSecond:
    """x with its channels on axis 1, in C order: PyTorch reads another dy wrongly at times."""

    def __init__(self, case):
        self.axis, self.ndim = case.options.get("axis", case.norm.axis), case.x.ndim

    def there(self, array):
        return np.ascontiguousarray(np.moveaxis(array, self.axis, 1))

    def back(self, array):
        return np.moveaxis(array, 1, self.axis)

    def per_sample(self, parameter):
        return parameter.reshape(*parameter.shape, *[1] * (self.ndim - 2))


class AsItIs:
    def __init__(self, case):
        pass

    def there(self, array):
        return array

    back = there


def batch_norm(x, gamma, beta, case):
    flat = [None if parameter is None else parameter.flatten() for parameter in (gamma, beta)]
    return functional.batch_norm(x, None, None, *flat, training=True, eps=case.eps)


def layer_norm(x, gamma, beta, case):
    return functional.layer_norm(x, normalized_shape(case), gamma, beta, case.eps)


def rms_norm(x, gamma, _, case):
    return functional.rms_norm(x, normalized_shape(case), gamma, case.eps)


def normalized_shape(case):
    return case.x.shape[-len(case.view.over) :]


def instance_norm(x, gamma, beta, case):
    return functional.instance_norm(x, weight=gamma, bias=beta, eps=case.eps)


def group_norm(x, gamma, beta, case):
    return functional.group_norm(x, case.options["num_groups"], gamma, beta, case.eps)


PEERS = {
    cybn.forward: (batch_norm, Rows),
    cybn.layer_norm: (layer_norm, AsItIs),
    cybn.rms_norm: (rms_norm, AsItIs),
    cybn.instance_norm: (instance_norm, ChannelsSecond),
    cybn.group_norm: (group_norm, ChannelsSecond),
    cybn.weight_standardize: (batch_norm, Rows),
}


def run_torch(case):
    peer, layout = PEERS[case.norm.function]
    layout = layout(case)
    x, gamma, beta = tensor(layout.there(case.x)), tensor(case.gamma), tensor(case.beta)
    if case.norm.per_sample:
        y = peer(x, None, None, case)
        y = y if gamma is None else y * layout.per_sample(gamma)
        y = y if beta is None else y + layout.per_sample(beta)
    else:
        y = peer(x, gamma, beta, case)
    y.backward(tensor(layout.there(case.dy), requires_grad=False))
    gradients = [None if leaf is None else leaf.grad.numpy() for leaf in (gamma, beta)]
    return Results(layout.back(y.detach().numpy()), layout.back(x.grad.numpy()), *gradients)


def run_reference(case):
    return norms.run_reference(case, np.float64)


@pytest.mark.parametrize("run", [run_cybn, run_reference])
@settings(max_examples=1000)  # hypothesis repeats some: 400 different ones are wanted
@given(case=norm_cases())
def test_drawn_cases(run, case):
    """Of cybn, and of the reference that judges it in the other tests."""
    actual, expected = run(case), run_torch(case)
    scales = {"y": None, "dx": case.dx_scale.max()}
    for name, one, other in zip(Results._fields, actual, expected, strict=True):
        if other is None:
            assert one is None, name
        else:
            scale = scales[name] if name in scales else case.terms(other).max()
            assert_close(one, other, TOLERANCES[one.dtype], scale)


LAYERS = {
    "LayerNorm": (lambda **options: cybn.LayerNorm((3, 4), **options), torch.nn.LayerNorm((3, 4))),
    "RMSNorm": (lambda **options: cybn.RMSNorm(4, **options), torch.nn.RMSNorm(4, eps=1e-5)),
    "GroupNorm": (lambda **options: cybn.GroupNorm(3, 6, **options), torch.nn.GroupNorm(3, 6)),
    "InstanceNorm": (
        lambda **options: cybn.InstanceNorm(6, **options),
        torch.nn.InstanceNorm2d(6),
    ),
    "InstanceNorm, tracked": (
        lambda **options: cybn.InstanceNorm(
            6, affine=True, track_running_stats=True, momentum=0.3, **options
        ),
        torch.nn.InstanceNorm2d(6, affine=True, track_running_stats=True, momentum=0.3),
    ),
}


@pytest.mark.parametrize(("make", "peer"), LAYERS.values(), ids=LAYERS)
def test_layers_work_alike(rng, make, peer):
    """From PyTorch's state, training and inference, and back into its state."""
    peer = copy.deepcopy(peer).double()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter[...] = tensor(rng.normal(size=parameter.shape))
    layer = make(dtype=np.float64)
    layer.load_state_dict({key: value.numpy() for key, value in peer.state_dict().items()})

    for _ in range(3):
        x = rng.normal(5.0, 2.0, (5, 6, 3, 4))
        assert_allclose(layer(x), peer(tensor(x)).detach().numpy(), rtol=1e-11, atol=1e-11)
    peer.eval()
    if isinstance(layer, cybn.InstanceNorm):
        layer.eval()
    assert_allclose(layer(x), peer(tensor(x)).detach().numpy(), rtol=1e-11, atol=1e-11)

    state = {key: torch.as_tensor(value) for key, value in layer.state_dict().items()}
    state.pop("num_batches_tracked", None)  # PyTorch's instance norm does not count
    for key, value in state.items():
        assert_allclose(value.numpy(), peer.state_dict()[key].numpy(), rtol=1e-12)


@pytest.mark.parametrize(("make", "peer"), LAYERS.values(), ids=LAYERS)
def test_state_dicts_have_the_same_keys_shapes_and_dtypes(make, peer):
    expected, actual = peer.state_dict(), make().state_dict()
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert_array_equal(actual[key], value.numpy())
        assert np.asarray(actual[key]).dtype == value.numpy().dtype
        assert np.shape(actual[key]) == value.numpy().shape
