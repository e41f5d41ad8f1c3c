"""PyTorch, run in float64, as a peer: functions, and the layer's state dict."""

import numpy as np
import pytest
from cases import Results, cases, run_cybn
from checks import assert_close
from hypothesis import given, settings
from numpy.testing import assert_allclose, assert_array_equal

import cybn

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # its OpenMP pool and ours would fight for the cores

# float32 results are rounded once (6e-8), float64 ones are the work of some dozens of roundings,
# here and in PyTorch.
TOLERANCES = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-11}


def tensor(array, requires_grad=False):
    if array is None:
        return None
    return torch.tensor(array, dtype=torch.float64, requires_grad=requires_grad)


def run_torch(case):
    x = tensor(np.ascontiguousarray(np.moveaxis(case.x, case.axis, 1)), requires_grad=True)
    dy = tensor(np.ascontiguousarray(np.moveaxis(case.dy, case.axis, 1)))
    gamma, beta = tensor(case.gamma, requires_grad=True), tensor(case.beta, requires_grad=True)
    running = tensor(case.running_mean), tensor(case.running_var)
    y = torch.nn.functional.batch_norm(
        x, *running, gamma, beta, case.training, case.momentum, case.eps
    )
    y.backward(dy)
    return Results(
        np.moveaxis(y.detach().numpy(), 1, case.axis),
        np.moveaxis(x.grad.numpy(), 1, case.axis),
        *(None if tensor is None else tensor.grad.numpy() for tensor in (gamma, beta)),
        *(None if tensor is None else tensor.numpy() for tensor in running),
    )


@settings(max_examples=1000)  # hypothesis repeats some: 400 different ones are wanted
@given(case=cases(min_rank=2))
def test_drawn_cases(case):
    tolerance = TOLERANCES[case.x.dtype]
    scales = {"dx": case.dx_scale.max()}
    actual, expected = run_cybn(case), run_torch(case)
    for name, one, other in zip(Results._fields, actual, expected, strict=True):
        if other is None:
            assert one is None, name
        else:
            loosest = max(tolerance, TOLERANCES[one.dtype])
            assert_close(one, other, loosest, scales.get(name))


def torch_layer(rng, **options):
    layer = torch.nn.BatchNorm1d(3, dtype=torch.float64, **options)
    with torch.no_grad():
        layer.weight[:] = tensor(rng.normal(size=3))
        layer.bias[:] = tensor(rng.normal(size=3))
    return layer


def test_layers_train_alike(rng):
    """Several steps of training, then inference, from PyTorch's state and back into it."""
    peer = torch_layer(rng, momentum=0.3, eps=1e-3)
    layer = cybn.BatchNorm(3, momentum=0.3, eps=1e-3, dtype=np.float64)
    layer.load_state_dict({key: value.numpy() for key, value in peer.state_dict().items()})

    for n in (8, 2, 33):
        x = rng.normal(5.0, 2.0, (n, 3, 4))
        assert_allclose(layer(x), peer(tensor(x)).detach().numpy(), rtol=1e-11, atol=1e-11)
    layer.eval()
    peer.eval()
    assert_allclose(layer(x), peer(tensor(x)).detach().numpy(), rtol=1e-11, atol=1e-11)

    state = {key: torch.as_tensor(value) for key, value in layer.state_dict().items()}
    assert state["num_batches_tracked"] == peer.num_batches_tracked == 3
    for key, value in peer.state_dict().items():
        assert_allclose(state[key].numpy(), value.numpy(), rtol=1e-13)
    peer.load_state_dict(state, strict=True)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track_running_stats", [True, False])
def test_state_dicts_have_the_same_keys_shapes_and_dtypes(affine, track_running_stats):
    options = {"affine": affine, "track_running_stats": track_running_stats}
    expected = torch.nn.BatchNorm2d(3, **options).state_dict()
    actual = cybn.BatchNorm(3, **options).state_dict()
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert_array_equal(actual[key], value.numpy())
        assert np.asarray(actual[key]).dtype == value.numpy().dtype
        assert np.shape(actual[key]) == value.numpy().shape
