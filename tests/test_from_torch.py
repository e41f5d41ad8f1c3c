"""from_torch and state dicts of PyTorch, against its modules in float64."""

import copy
import doctest

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cybn
from cybn import _interop_torch

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # its OpenMP pool and ours would fight for the cores
nn = torch.nn

# Some dozens of roundings of 1.1e-16 each, here and in PyTorch.
TOLERANCE = {"rtol": 1e-11, "atol": 1e-11}

IMAGES, VOLUMES, SERIES, ROWS = (5, 6, 3, 4), (5, 6, 3, 4, 2), (5, 6, 7), (5, 6)
MODULES = {
    "BatchNorm1d, rows": (nn.BatchNorm1d(6, eps=1e-3), ROWS),
    "BatchNorm1d": (nn.BatchNorm1d(6, momentum=0.3), SERIES),
    "BatchNorm2d": (nn.BatchNorm2d(6, eps=1e-3, momentum=0.01), IMAGES),
    "BatchNorm3d": (nn.BatchNorm3d(6), VOLUMES),
    "BatchNorm2d, not affine": (nn.BatchNorm2d(6, affine=False), IMAGES),
    "BatchNorm2d, not tracking": (nn.BatchNorm2d(6, track_running_stats=False), IMAGES),
    "BatchNorm2d, neither": (
        nn.BatchNorm2d(6, affine=False, track_running_stats=False, eps=0.1),
        IMAGES,
    ),
    "BatchNorm2d, momentum None": (nn.BatchNorm2d(6, momentum=None), IMAGES),
    "BatchNorm2d, no bias": (nn.BatchNorm2d(6, bias=False), IMAGES),
    "LayerNorm": (nn.LayerNorm(4, eps=1e-3), IMAGES),
    "LayerNorm, two axes": (nn.LayerNorm((3, 4)), IMAGES),
    "LayerNorm, no bias": (nn.LayerNorm(4, bias=False), IMAGES),
    "LayerNorm, not affine": (nn.LayerNorm(4, elementwise_affine=False), IMAGES),
    "RMSNorm": (nn.RMSNorm(4, eps=1e-3), IMAGES),
    "RMSNorm, eps None": (nn.RMSNorm((3, 4)), IMAGES),
    "GroupNorm": (nn.GroupNorm(3, 6, eps=1e-3), IMAGES),
    "GroupNorm, not affine": (nn.GroupNorm(2, 6, affine=False), SERIES),
    "InstanceNorm1d": (nn.InstanceNorm1d(6), SERIES),
    "InstanceNorm2d": (nn.InstanceNorm2d(6, affine=True, eps=1e-3), IMAGES),
    "InstanceNorm3d": (nn.InstanceNorm3d(6), VOLUMES),
    "InstanceNorm2d, tracking": (
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True, momentum=0.3),
        IMAGES,
    ),
    "InstanceNorm2d, momentum None": (
        nn.InstanceNorm2d(6, track_running_stats=True, momentum=None),
        IMAGES,
    ),
}


def trained(module, rng, dtype=torch.float64):
    """A copy with other parameters and statistics than a new module has."""
    module = copy.deepcopy(module).to(dtype)
    with torch.no_grad():
        for values in (*module.parameters(), *module.buffers()):
            if values.is_floating_point():
                values[...] = torch.tensor(rng.uniform(0.5, 2.0, values.shape))
    return module


def assert_same_state(layer, module):
    for name in ("weight", "bias", "running_mean", "running_var"):
        theirs = getattr(module, name, None)
        ours = getattr(layer, {"weight": "gamma", "bias": "beta"}.get(name, name), None)
        if theirs is not None:
            assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(("module", "shape"), MODULES.values(), ids=MODULES)
def test_inference_is_the_same(rng, module, shape):
    module = trained(module, rng).eval()
    layer = cybn.from_torch(module)
    assert not layer.training
    assert_same_state(layer, module)
    x = rng.normal(5.0, 2.0, shape)
    assert_allclose(layer(x), module(torch.tensor(x)).detach().numpy(), **TOLERANCE)


@pytest.mark.parametrize(("module", "shape"), MODULES.values(), ids=MODULES)
def test_training_is_the_same(rng, module, shape):
    """Result, gradient and running statistics of steps from where PyTorch was."""
    module = trained(module, rng).train()
    layer = cybn.from_torch(module)
    assert layer.training
    # With momentum=None PyTorch's second step averages batches, cybn's all values.
    for _ in range(1 if isinstance(layer, cybn.BatchNorm) and layer.momentum is None else 3):
        x, dy = rng.normal(5.0, 2.0, shape), rng.normal(size=shape)
        leaf = torch.tensor(x, requires_grad=True)
        y = module(leaf)
        y.backward(torch.tensor(dy))
        assert_allclose(layer(x), y.detach().numpy(), **TOLERANCE)
        assert_allclose(layer.backward(dy), leaf.grad.numpy(), **TOLERANCE)
    assert_same_state(layer, module)
    # A bias that PyTorch does not have stays 0 here.
    if getattr(module, "bias", None) is None and layer.beta is not None:
        assert_array_equal(layer.beta, 0)


@pytest.mark.parametrize("momentum", [0.25, None])
def test_settings_and_count(rng, momentum):
    module = nn.BatchNorm2d(6, eps=1e-3, momentum=momentum)
    module(torch.tensor(rng.normal(size=IMAGES), dtype=torch.float32))
    layer = cybn.from_torch(module)
    assert (layer.eps, layer.momentum, layer.num_batches_tracked) == (1e-3, momentum, 1)
    assert layer.dtype == np.float32


def test_further_training_with_momentum_none_begins_anew(rng):
    """As it is not known how many values went into PyTorch's statistics."""
    module = trained(nn.BatchNorm1d(6, momentum=None), rng)
    module.num_batches_tracked += 7
    module.running_mean[0] = torch.nan
    layer = cybn.from_torch(module)
    x = rng.normal(size=ROWS)
    layer(x)
    assert (layer.num_batches_tracked, layer.num_values_tracked) == (1, len(x))
    assert_allclose(layer.running_mean, x.mean(axis=0), rtol=1e-13)
    assert_allclose(layer.running_var, x.var(axis=0, ddof=1), rtol=1e-13)


def test_arrays_are_copies(rng):
    module = trained(nn.BatchNorm2d(6), rng).train()
    before = copy.deepcopy(module.state_dict())
    layer = cybn.from_torch(module)
    layer(rng.normal(size=IMAGES))
    layer.gamma += 1
    layer.beta += 1
    for key, value in module.state_dict().items():
        assert_array_equal(value.numpy(), before[key].numpy())


def test_synchronized_batch_norm(rng):
    """Its state and settings; in inference, PyTorch runs it on a CPU, too."""
    module = trained(nn.SyncBatchNorm(6, eps=1e-3), rng)
    assert cybn.from_torch(module).training
    layer = cybn.from_torch(module.eval())
    x = rng.normal(5.0, 2.0, IMAGES)
    assert_allclose(layer(x), module(torch.tensor(x)).detach().numpy(), **TOLERANCE)


class Renamed(nn.BatchNorm2d):
    """Has PyTorch's forward."""


class Fused(nn.BatchNorm2d):
    """Has one of its own."""

    def forward(self, x):
        return super().forward(x).relu()


def test_class_made_from_theirs(rng):
    module = trained(Renamed(6), rng).eval()
    x = rng.normal(size=IMAGES)
    expected = module(torch.tensor(x)).detach().numpy()
    assert_allclose(cybn.from_torch(module)(x), expected, **TOLERANCE)
    parametrized = nn.utils.parametrize.register_parametrization(module, "weight", nn.Softplus())
    expected = parametrized(torch.tensor(x)).detach().numpy()
    assert_allclose(cybn.from_torch(parametrized)(x), expected, **TOLERANCE)


BATCH_NORM = nn.BatchNorm2d(6)
TENT = copy.deepcopy(BATCH_NORM)
TENT.track_running_stats = False
REFUSED = [
    (nn.Linear(3, 3), TypeError, r"module: .*BatchNorm2d.* got torch\.nn\.modules\.linear\.Linear"),
    (nn.Sequential(BATCH_NORM), TypeError, r"module: .*Sequential"),
    (Fused(6), TypeError, r"module: .*test_from_torch\.Fused"),
    (nn.LocalResponseNorm(2), TypeError, r"module: .*LocalResponseNorm"),
    (nn.LazyBatchNorm2d(), TypeError, r"module: .*LazyBatchNorm2d: pass a batch through it first"),
    (torch.ones(3), TypeError, r"module: .*torch\.Tensor"),
    (BATCH_NORM.state_dict(), TypeError, r"module: .*OrderedDict"),
    (None, TypeError, r"module: .*NoneType"),
    (nn.BatchNorm2d, TypeError, r"module: .*builtins\.type"),
    (copy.deepcopy(BATCH_NORM).half(), TypeError, r"module\.weight: .*torch\.float16: convert"),
    (copy.deepcopy(BATCH_NORM).bfloat16(), TypeError, r"module\.weight: .*torch\.bfloat16"),
    (nn.LayerNorm(3, device="meta"), ValueError, r"module\.weight: .* got one on meta.*\.cpu\(\)"),
    (TENT, ValueError, r"module\.track_running_stats: expected True, .* got False"),
    (nn.BatchNorm2d(6, eps=0.0), ValueError, r"eps: expected a finite value > 0, got 0\.0"),
    (nn.BatchNorm2d(6, momentum=1.5), ValueError, r"momentum: "),
]


@pytest.mark.parametrize(("module", "error", "match"), REFUSED)
def test_refused(module, error, match):
    with pytest.raises(error, match=match):
        cybn.from_torch(module)


def test_half_precision_statistics_are_refused():
    module = nn.BatchNorm2d(6)
    module.running_var = module.running_var.half()
    with pytest.raises(TypeError, match=r"module\.running_var: .*float16"):
        cybn.from_torch(module)


def test_lazy_module_after_a_batch(rng):
    module = nn.LazyBatchNorm2d()
    module(torch.ones(IMAGES))
    assert cybn.from_torch(module).num_features == 6


def test_state_dict_of_a_whole_model(rng):
    """Its tensors as they are, and those of parameters, which require gradients."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), trained(nn.BatchNorm2d(6), rng), nn.ReLU())
    for state in (model.state_dict(), model.state_dict(keep_vars=True)):
        assert state["1.weight"].requires_grad == (state["1.weight"] is model[1].weight)
        layer = cybn.BatchNorm(6, dtype=np.float64)
        layer.load_state_dict(state, prefix="1.")
        assert_same_state(layer, model[1])


@pytest.mark.parametrize(
    "value", [torch.ones(3, dtype=torch.bfloat16), torch.ones(3, device="meta")]
)
def test_tensor_that_numpy_cannot_read(value):
    layer = cybn.LayerNorm(3)
    with pytest.raises(TypeError):
        layer.load_state_dict({"weight": value, "bias": torch.zeros(3)})
    assert_array_equal(layer.gamma, 1)


def test_examples_in_docstrings():
    assert doctest.testmod(_interop_torch).failed == 0
