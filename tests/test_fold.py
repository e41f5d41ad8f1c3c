"""fold: against long double, against whole networks, and against PyTorch's own."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from cases import DTYPES
from checks import assert_nearest, refused
from numpy.testing import assert_allclose, assert_array_equal

import cybn

EXAMPLES = Path(__file__).parents[1] / "examples"

# (shape of the weight, axis of the output channels): linear layers and convolutions of PyTorch
# (transposed, too), and of Keras and Flax.
WEIGHTS = [((6, 4), 0), ((6, 3, 2, 2), 0), ((3, 6, 2), 1), ((4, 6), -1), ((2, 2, 3, 6), -1)]


def inference_layer(rng, channels=6, **options):
    bn = cybn.BatchNorm(channels, **options).eval()
    bn.running_mean[:] = rng.normal(5.0, 2.0, channels)
    bn.running_var[:] = rng.uniform(0.1, 3.0, channels)
    if bn.gamma is not None:
        bn.gamma[:] = rng.normal(size=channels)
    if bn.beta is not None:
        bn.beta[:] = rng.normal(size=channels)
    return bn


def along(values, ndim, axis):
    """Shape an array of shape (C,) such that it broadcasts against a weight."""
    return np.reshape(values, [-1 if i == axis % ndim else 1 for i in range(ndim)])


def textbook(weight, bias, bn, axis):
    """In long double."""
    mean, var, eps = (np.longdouble(a) for a in (bn.running_mean, bn.running_var, bn.eps))
    gamma = np.longdouble(1 if bn.gamma is None else bn.gamma)
    beta = np.longdouble(0 if bn.beta is None else bn.beta)
    scale = gamma / np.sqrt(var + eps)
    bias = np.longdouble(0 if bias is None else bias)
    new_weight = weight * along(scale, weight.ndim, axis)
    terms = np.abs(bias * scale) + np.abs(mean * scale) + np.abs(beta)
    return new_weight, (bias - mean) * scale + beta, terms


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of_bn", DTYPES)
@pytest.mark.parametrize(("shape", "axis"), WEIGHTS)
@pytest.mark.parametrize("affine", [True, False])
def test_nearest_to_the_exact_values(rng, dtype, of_bn, shape, axis, affine):
    bn = inference_layer(rng, dtype=of_bn, affine=affine, eps=1e-3)
    weight = rng.normal(size=shape).astype(dtype)
    for bias in (None, rng.normal(size=6), rng.normal(size=6).astype(np.float32)):
        new_weight, new_bias = cybn.fold(weight, bias, bn, axis=axis)
        assert new_weight.dtype == new_bias.dtype == dtype
        exact_weight, exact_bias, terms = textbook(weight, bias, bn, axis)
        assert_nearest(new_weight, exact_weight, np.abs(exact_weight))
        assert_nearest(new_bias, exact_bias, terms)


def test_rounded_once():
    """1 + 2**-24 lies between two float32 values; rounded there, beta would be lost."""
    bn = cybn.BatchNorm(1, eps=0.25).eval()
    bn.running_var[:] = 0.75
    bn.running_mean[:] = -(2.0**-24)
    bn.beta[:] = 2.0**-40
    _, new_bias = cybn.fold(np.ones((1, 1), np.float32), np.float32([1.0]), bn)
    assert new_bias[0] == np.float32(1 + 2.0**-23)


@pytest.mark.parametrize("axis", [0, -1])
def test_linear_layer(rng, axis):
    bn = inference_layer(rng, dtype=np.float64)
    weight, bias = rng.normal(size=(6, 6)), rng.normal(size=6)
    new_weight, new_bias = cybn.fold(weight, bias, bn, axis=axis)
    x = rng.normal(size=(9, 6))
    expected = bn(x @ (weight.T if axis == 0 else weight) + bias)
    actual = x @ (new_weight.T if axis == 0 else new_weight) + new_bias
    assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_nothing_is_changed(rng):
    bn = inference_layer(rng)
    weight, bias = rng.normal(size=(6, 4)), rng.normal(size=6)
    before = [array.copy() for array in (weight, bias, *bn.state_dict().values())]
    new_weight, new_bias = cybn.fold(weight, bias, bn)
    assert not np.shares_memory(new_weight, weight)
    assert not np.shares_memory(new_bias, bias)
    for array, expected in zip((weight, bias, *bn.state_dict().values()), before, strict=True):
        assert_array_equal(array, expected)


def test_frozen_layer(rng):
    bn = inference_layer(rng).train().freeze()
    new_weight, _ = cybn.fold(np.ones((6, 4), np.float32), None, bn)
    assert_array_equal(new_weight, cybn.fold(np.ones((6, 4), np.float32), None, bn.eval())[0])


def test_infinity_and_nan_stay_in_their_channel(rng):
    bn = inference_layer(rng)
    bn.running_var[:2] = np.nan, -1.0
    bn.running_mean[2] = np.inf
    new_weight, new_bias = cybn.fold(np.ones((6, 4)), None, bn)
    assert_array_equal(np.isnan(new_weight).any(axis=1), [True, True] + [False] * 4)
    assert_array_equal(np.isfinite(new_bias), [False] * 3 + [True] * 3)


REFUSED = [
    ({"bn": cybn.LayerNorm(6)}, TypeError, "bn: expected a BatchNorm, got LayerNorm"),
    ({"bn": None}, TypeError, "bn: "),
    ({"bn": cybn.BatchNorm(6)}, ValueError, r"bn: .* in training: call bn\.eval\(\)"),
    (
        {"bn": cybn.BatchNorm(6, track_running_stats=False).eval()},
        ValueError,
        "bn: expected a layer with track_running_stats=True",
    ),
    (
        {"bn": cybn.BatchNorm(6, activation="relu").eval()},
        ValueError,
        r"bn: expected a layer without activation, got 'relu'.*set bn\.activation = None",
    ),
    ({"axis": 1}, ValueError, r"weight: expected 6 output .* 1, got shape \(6, 4\); .*pass axis=0"),
    ({"weight": np.ones((4, 6))}, ValueError, r"weight: .*pass axis=-1"),
    ({"weight": np.ones((4, 5))}, ValueError, r"weight: .* got shape \(4, 5\)$"),
    ({"weight": np.float32(1)}, ValueError, r"weight: .* got shape \(\)$"),
    ({"weight": np.ones((6, 4), complex)}, TypeError, "weight: "),
    ({"axis": 2}, ValueError, "axis: "),
    ({"axis": (0,)}, TypeError, "axis: "),
    ({"axis": 0.0}, TypeError, "axis: "),
    ({"bias": np.ones(4)}, ValueError, r"bias: expected shape \(6,\), got \(4,\)"),
    ({"bias": "zeros"}, TypeError, "bias: "),
]


@pytest.mark.parametrize(("arguments", "error", "match"), REFUSED)
def test_refused(rng, arguments, error, match):
    bn, weight = inference_layer(rng), np.ones((6, 4), np.float32)
    given = {"weight": weight, "bias": None, "bn": bn} | arguments
    with refused(error, match, weight, bn.gamma, bn.beta, bn.running_mean, bn.running_var):
        cybn.fold(**given)


@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
def test_array_of_the_layer_that_does_not_fit(rng, name):
    bn = inference_layer(rng)
    setattr(bn, name, np.ones(3))
    with refused(ValueError, rf"{name}: expected shape \(6,\)"):
        cybn.fold(np.ones((6, 4)), None, bn)


def test_trained_network(monkeypatch):
    """That of examples/digits.py, on handwritten digits: without its BatchNorm it says the same."""
    for package in ("sklearn", "threadpoolctl"):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(EXAMPLES)
    examples = importlib.import_module("_network")
    x_train, x_test, labels_train, labels_test = examples.scaled_digits(seed=0)
    rng = np.random.default_rng(0)
    hidden, last = examples.Dense(64, 128, rng), examples.Dense(128, 10, rng)
    network = examples.Network(hidden, cybn.BatchNorm(128), examples.ReLU(), last)
    for _ in range(3):
        examples.train_epoch(network, x_train, labels_train, 32, 0.1, rng)
    network.set_training(False)
    expected = network(x_test)
    assert np.mean(expected.argmax(axis=1) == labels_test) > 0.9

    bn = network.layers[1]
    hidden.weight, hidden.bias = cybn.fold(hidden.weight, hidden.bias, bn, axis=-1)
    assert hidden.weight.dtype == np.float32
    actual = examples.Network(hidden, examples.ReLU(), last)(x_test)
    assert_array_equal(actual.argmax(axis=1), expected.argmax(axis=1))
    # Matrix products of 64 and 128 values in float32.
    assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["Conv2d", "Conv1d", "ConvTranspose2d", "Linear"])
def test_as_pytorch_folds(rng, name):
    """The same as its own fusion, and as the two modules one after the other, in float64."""
    torch = pytest.importorskip("torch")
    fusion = pytest.importorskip("torch.nn.utils.fusion")
    sizes = (4, 6) if name == "Linear" else (4, 6, 3)
    module = getattr(torch.nn, name)(*sizes).double().eval()
    norm = torch.nn.BatchNorm1d(6, eps=1e-3) if name[-1] != "d" else None
    norm = norm or getattr(torch.nn, f"BatchNorm{name[-2:]}")(6, eps=1e-3)
    norm = norm.double().eval()
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            values[...] = torch.tensor(rng.uniform(0.5, 2.0, 6))
    transposed = "Transpose" in name
    arrays = [parameter.detach().numpy() for parameter in (module.weight, module.bias)]
    new_weight, new_bias = cybn.fold(*arrays, cybn.from_torch(norm), axis=1 if transposed else 0)
    if name == "Linear":
        theirs = fusion.fuse_linear_bn_eval(module, norm)
    else:
        theirs = fusion.fuse_conv_bn_eval(module, norm, transpose=transposed)
    assert_allclose(new_weight, theirs.weight.detach().numpy(), rtol=1e-14)
    assert_allclose(new_bias, theirs.bias.detach().numpy(), rtol=1e-14, atol=1e-14)
    x = torch.tensor(rng.normal(size=(2, 4, 8, 8)[: 4 if "2" in name else 3 if "1" in name else 2]))
    with torch.no_grad():
        expected = norm(module(x))
        module.weight[...], module.bias[...] = torch.tensor(new_weight), torch.tensor(new_bias)
        assert_allclose(module(x).numpy(), expected.numpy(), rtol=1e-11, atol=1e-11)
