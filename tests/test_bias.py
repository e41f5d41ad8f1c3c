"""bias=False: a gamma without beta, as PyTorch's LayerNorm has it; of every layer with a beta."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from checks import refused
from numpy.testing import assert_array_equal

import cybn

# The layer, what it computes from x and gamma, and the shape of gamma.
LAYERS = {
    "BatchNorm": (partial(cybn.BatchNorm, 6), cybn.batch_norm, 6),
    "LayerNorm": (partial(cybn.LayerNorm, 5), cybn.layer_norm, 5),
    "GroupNorm": (partial(cybn.GroupNorm, 3, 6), partial(cybn.group_norm, num_groups=3), 6),
    "InstanceNorm": (partial(cybn.InstanceNorm, 6, affine=True), cybn.instance_norm, 6),
}
all_layers = pytest.mark.parametrize(("make", "norm", "length"), LAYERS.values(), ids=LAYERS)


@pytest.fixture
def x(rng):
    return rng.normal(2.0, 3.0, (4, 6, 5)).astype(np.float32)


@all_layers
def test_call_and_gradients(rng, x, make, norm, length):
    layer, dy = make(bias=False), rng.normal(size=x.shape)
    layer.gamma[...] = rng.normal(size=length)
    y, dx = layer(x), layer.backward(dy)
    expected_y, cache = norm(x, gamma=layer.gamma)
    expected = cybn.backward(dy, cache)
    assert_array_equal(y, expected_y)
    assert_array_equal(dx, expected.dx)
    assert_array_equal(layer.dgamma, expected.dgamma)
    assert layer.beta is None
    assert layer.dbeta is None


@all_layers
def test_state(make, norm, length):
    layer = make(bias=False)
    layer.gamma[...] = np.arange(length)
    state = layer.state_dict()
    assert "weight" in state
    assert "bias" not in state
    twin = make(bias=False)
    twin.load_state_dict(state)
    assert_array_equal(twin.gamma, layer.gamma)
    with refused(ValueError, "unknown key bias", twin.gamma):
        twin.load_state_dict(state | {"bias": np.zeros(length)})
    with refused(ValueError, "missing key bias"):
        make().load_state_dict(state)


@all_layers
def test_repr_is_the_call_that_makes_the_layer(make, norm, length):
    names = {"float32": np.float32}
    for options in ({"bias": False}, {}, {"affine": False}):
        layer = make(**options)
        text = repr(layer)
        assert f"bias={options.get('bias', True)}" in text
        assert repr(eval(f"cybn.{text}", {"cybn": cybn, **names})) == text


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@all_layers
def test_copies(x, make, norm, length, copied):
    twin = copied(make(bias=False))
    assert twin.beta is None
    assert_array_equal(twin(x), make(bias=False)(x))


@all_layers
def test_without_gamma_there_is_no_beta_either(make, norm, length):
    for bias in (True, False):
        layer = make(affine=False, bias=bias)
        assert layer.gamma is None
        assert layer.beta is None


@pytest.mark.parametrize("bias", [0, None, "no"])
@all_layers
def test_bias_that_is_no_bool(make, norm, length, bias):
    with pytest.raises(TypeError, match=r"\bbias\b: expected a bool"):
        make(bias=bias)


def test_rms_norm_has_none():
    assert "bias" not in repr(cybn.RMSNorm(5))
    with pytest.raises(TypeError, match="bias"):
        cybn.RMSNorm(5, bias=False)


def test_is_pytorchs_layer_norm(rng, x):
    torch = pytest.importorskip("torch")
    peer = torch.nn.LayerNorm(5, bias=False)
    with torch.no_grad():
        peer.weight[:] = torch.from_numpy(rng.normal(size=5))
    layer = cybn.LayerNorm(5, bias=False)
    layer.load_state_dict({key: value.numpy() for key, value in peer.state_dict().items()})
    expected = peer(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(layer(x), expected, atol=2e-6)  # PyTorch's own error
