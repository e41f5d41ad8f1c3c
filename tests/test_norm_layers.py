"""LayerNorm, RMSNorm, InstanceNorm and GroupNorm: the manners of BatchNorm."""

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from cases import COPIES, DTYPES, tracked
from checks import assert_close, refused
from numpy.testing import assert_allclose, assert_array_equal

import cybn

SHAPE = (4, 6, 5)
STATISTICS = ["running_mean", "running_var", "num_batches_tracked"]


class Kind(NamedTuple):
    make: Callable  # with the options of the layer
    function: Callable  # that it stands for
    shape: tuple  # of its parameters, for x of SHAPE
    keys: list = ["weight", "bias"]  # noqa: RUF012

    @property
    def parameters(self):
        return ["gamma", "beta"][: 2 if "bias" in self.keys else 1]


def group_norm(x, *parameters, **options):
    return cybn.group_norm(x, 3, *parameters, **options)


def over_two_axes(function):
    return partial(function, axis=(1, 2))


instance_norm = partial(cybn.InstanceNorm, 6, affine=True)
KINDS = {
    "LayerNorm": Kind(partial(cybn.LayerNorm, 5), cybn.layer_norm, (5,)),
    "LayerNorm, two axes": Kind(
        partial(cybn.LayerNorm, (6, 5)), over_two_axes(cybn.layer_norm), (6, 5)
    ),
    "RMSNorm": Kind(partial(cybn.RMSNorm, 5), cybn.rms_norm, (5,), ["weight"]),
    "RMSNorm, two axes": Kind(
        partial(cybn.RMSNorm, (6, 5)), over_two_axes(cybn.rms_norm), (6, 5), ["weight"]
    ),
    "GroupNorm": Kind(partial(cybn.GroupNorm, 3, 6), group_norm, (6,)),
    "InstanceNorm": Kind(instance_norm, cybn.instance_norm, (6,)),
    "InstanceNorm, tracked": Kind(
        partial(instance_norm, track_running_stats=True),
        cybn.instance_norm,
        (6,),
        ["weight", "bias", *STATISTICS],
    ),
}
all_kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@pytest.fixture
def x(rng):
    return rng.normal(3.0, 2.0, SHAPE).astype(np.float32)


@pytest.fixture
def dy(rng):
    return rng.normal(size=SHAPE).astype(np.float32)


def trained(rng, kind, x, **options):
    """A layer whose arrays all differ from what they start with."""
    layer = kind.make(**options)
    for name in kind.parameters:
        getattr(layer, name)[...] = rng.normal(size=kind.shape)
    layer(x)
    layer(2 * x)
    return layer


def parameters_of(layer, kind):
    return [getattr(layer, name) for name in kind.parameters]


@pytest.mark.parametrize("dtype", DTYPES)
@all_kinds
def test_a_new_layer(kind, dtype):
    layer = kind.make(dtype=dtype)
    for parameter, value in zip(parameters_of(layer, kind), (1, 0), strict=False):
        assert_array_equal(parameter, np.full(kind.shape, value))
        assert parameter.dtype == dtype


@pytest.mark.parametrize("eps", [1e-5, 0.5])
@all_kinds
def test_call_and_backward_are_those_of_the_function(rng, kind, x, dy, eps):
    layer = trained(rng, kind, x, eps=eps)
    parameters = parameters_of(layer, kind)

    y, dx = layer(x), layer.backward(dy)

    expected_y, cache = kind.function(x, *parameters, eps=eps)
    expected = cybn.backward(dy, cache)
    assert_array_equal(y, expected_y)
    assert_array_equal(dx, expected.dx)
    for name in kind.parameters:
        assert_array_equal(getattr(layer, f"d{name}"), getattr(expected, f"d{name}"))
    assert np.shares_memory(layer.cache.x, x)


@all_kinds
def test_default_eps(rng, kind, x):
    layer = kind.make()
    assert_array_equal(layer(x), kind.function(x, *parameters_of(layer, kind), eps=1e-5)[0])


@all_kinds
def test_without_parameters(kind, x, dy):
    layer = kind.make(affine=False)
    assert layer.gamma is None
    assert_array_equal(layer(x), kind.function(x)[0])
    layer.backward(dy)
    assert layer.dgamma is None
    assert not {"weight", "bias"} & set(layer.state_dict())


def test_instance_norm_is_not_affine_by_default():
    """As PyTorch's."""
    layer = cybn.InstanceNorm(3)
    assert layer.gamma is None
    assert layer.beta is None
    assert layer.state_dict() == {}


def test_rms_norm_has_no_beta(x, dy):
    layer = cybn.RMSNorm(5)
    layer(x)
    layer.backward(dy)
    assert getattr(layer, "beta", None) is None
    assert getattr(layer, "dbeta", None) is None


@all_kinds
def test_out(rng, kind, x, dy):
    layer = trained(rng, kind, x)
    twin = copy.deepcopy(layer)
    y, dx = np.empty_like(x), np.empty_like(x)
    assert layer(x, out=y) is y
    assert layer.backward(dy, out=dx) is dx
    assert_array_equal(y, twin(x))
    assert_array_equal(dx, twin.backward(dy))


@all_kinds
def test_backward_before_forward(kind, dy):
    with refused(ValueError, "forward", dy):
        kind.make().backward(dy)


@all_kinds
def test_dtypes_of_layer_and_input_are_independent(kind, x):
    layer = kind.make(dtype=np.float64)
    assert layer(x).dtype == np.float32
    assert layer.backward(x).dtype == np.float32
    assert layer.dgamma.dtype == np.float64
    assert kind.make()(x.astype(np.float64)).dtype == np.float64


@pytest.mark.parametrize("axis", [-1, 2])
@pytest.mark.parametrize("name", ["GroupNorm", "InstanceNorm", "InstanceNorm, tracked"])
def test_channels_last(rng, name, x, axis):
    first, last = (KINDS[name].make(**options) for options in ({}, {"axis": axis}))
    for layer in (first, last):
        layer.gamma[...], layer.beta[...] = np.arange(6), 1
    assert_close(last(np.swapaxes(x, 1, 2)), np.swapaxes(first(x), 1, 2), 1e-6)


@pytest.mark.parametrize("length", [5, [5], (np.int64(5),)])
@pytest.mark.parametrize("layer", [cybn.LayerNorm, cybn.RMSNorm])
def test_normalized_shape_may_be_an_int_or_a_sequence(layer, length):
    assert layer(length).normalized_shape == (5,)


class TestState:
    @all_kinds
    def test_keys_and_values(self, rng, kind, x):
        layer = trained(rng, kind, x)
        state = layer.state_dict()
        assert list(state) == kind.keys
        for name, key in (("gamma", "weight"), ("beta", "bias")):
            if key in state:
                assert_array_equal(state[key], getattr(layer, name))
                assert not np.shares_memory(state[key], getattr(layer, name))

    @pytest.mark.parametrize("dtype", DTYPES)
    @all_kinds
    def test_round_trip(self, rng, kind, x, dtype):
        layer, twin = trained(rng, kind, x, dtype=dtype), kind.make(dtype=dtype)
        twin.load_state_dict(layer.state_dict())
        assert_array_equal(twin(x), layer(x))
        for key, value in layer.state_dict().items():
            assert_array_equal(twin.state_dict()[key], value)

    @all_kinds
    def test_is_all_or_nothing(self, rng, kind, x):
        layer, new = trained(rng, kind, x), kind.make()
        good, expected = layer.state_dict(), new.state_dict()
        spoiled = [
            ({key: good[key] for key in good if key != "weight"}, ValueError, "weight"),
            (good | {"scale": np.ones(3)}, ValueError, "scale"),
            (good | {"weight": np.ones(7)}, ValueError, "weight"),
            (good | {"weight": np.full(kind.shape, "a")}, TypeError, "weight"),
        ]
        for state, error, key in spoiled:
            with refused(error, key, *parameters_of(new, kind)):
                new.load_state_dict(state)
            for name, value in new.state_dict().items():
                assert_array_equal(value, expected[name])


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@all_kinds
def test_copies_are_equal_and_independent(rng, kind, x, dy, make):
    layer = trained(rng, kind, x, eps=1e-3)
    twin = make(layer)
    expected = copy.deepcopy(layer.state_dict())
    assert_array_equal(twin(x), layer(x))
    assert_array_equal(twin.backward(dy), layer.backward(dy))
    layer.load_state_dict(expected)
    twin.gamma += 1
    twin(x + 5)
    for key, value in layer.state_dict().items():
        assert_array_equal(value, expected[key])


def test_repr_is_the_call_that_makes_the_layer():
    for layer, parts in (
        (cybn.LayerNorm((6, 5), eps=1e-3), ["LayerNorm((6, 5)", "eps=0.001"]),
        (cybn.RMSNorm(5, affine=False), ["RMSNorm(", "5", "affine=False"]),
        (cybn.GroupNorm(3, 6, axis=-1), ["GroupNorm(3, 6", "axis=-1"]),
        (
            cybn.InstanceNorm(6, momentum=0.3, track_running_stats=True),
            ["InstanceNorm(6", "momentum=0.3", "track_running_stats=True"],
        ),
    ):
        text = repr(layer)
        for part in parts:
            assert part in text


BAD_INPUTS = {
    "longer": np.ones((4, 7, 7), np.float32),
    "one": np.ones((4, 1, 1), np.float32),
    "too few dimensions": np.ones(7, np.float32),
}


@pytest.mark.parametrize("bad", BAD_INPUTS.values(), ids=BAD_INPUTS)
@pytest.mark.parametrize("affine", [True, False])
@all_kinds
def test_refused_input_leaves_the_layer_as_it_was(kind, bad, affine):
    layer = kind.make(affine=affine)
    before = copy.deepcopy(layer.state_dict())
    with refused(ValueError, r"\b(x|axis)\b", bad):
        layer(bad)
    for key, value in layer.state_dict().items():
        assert_array_equal(value, before[key])


@pytest.mark.parametrize(
    ("layer", "arguments", "error", "name"),
    [
        *(
            (layer, {"normalized_shape": value}, error, "normalized_shape")
            for layer in (cybn.LayerNorm, cybn.RMSNorm)
            for value, error in (
                *((0, ValueError), (-1, ValueError), ((5, 0), ValueError), ((), ValueError)),
                *((5.0, TypeError), ("5", TypeError), (None, TypeError), ((5, "6"), TypeError)),
            )
        ),
        (cybn.GroupNorm, {"num_groups": 0}, ValueError, "num_groups"),
        (cybn.GroupNorm, {"num_groups": 4}, ValueError, "num_groups"),
        (cybn.GroupNorm, {"num_groups": 3.0}, TypeError, "num_groups"),
        (cybn.GroupNorm, {"num_channels": 0}, ValueError, "num_channels"),
        (cybn.GroupNorm, {"num_channels": "6"}, TypeError, "num_channels"),
        (cybn.InstanceNorm, {"num_features": 0}, ValueError, "num_features"),
        (cybn.InstanceNorm, {"num_features": None}, TypeError, "num_features"),
        (cybn.InstanceNorm, {"momentum": 1.5}, ValueError, "momentum"),
        (cybn.InstanceNorm, {"track_running_stats": "no"}, TypeError, "track_running_stats"),
        (cybn.GroupNorm, {"axis": 1.0}, TypeError, "axis"),
        (cybn.InstanceNorm, {"axis": "1"}, TypeError, "axis"),
    ],
)
def test_bad_arguments(layer, arguments, error, name):
    good = {
        cybn.LayerNorm: {"normalized_shape": 5},
        cybn.RMSNorm: {"normalized_shape": 5},
        cybn.GroupNorm: {"num_groups": 3, "num_channels": 6},
        cybn.InstanceNorm: {"num_features": 6},
    }[layer]
    with pytest.raises(error, match=rf"\b{name}\b"):
        layer(**good | arguments)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"eps": 0.0}, ValueError, "eps"),
        ({"eps": "small"}, TypeError, "eps"),
        ({"affine": "no"}, TypeError, "affine"),
        ({"dtype": "V2"}, (TypeError, ValueError), "dtype"),
    ],
)
@all_kinds
def test_bad_options(kind, options, error, name):
    with pytest.raises(error, match=rf"\b{name}\b"):
        kind.make(**options)


class TestTrackedInstanceNorm:
    """Running averages over the samples of each channel's own statistics, as PyTorch has them."""

    def test_training_tracks_the_mean_over_samples(self, x):
        layer = cybn.InstanceNorm(6, momentum=0.25, track_running_stats=True, dtype=np.float64)
        assert_array_equal(layer(x), cybn.instance_norm(x)[0])
        wide = x.astype(np.float64)
        mean = wide.mean(axis=2).mean(axis=0)
        var = wide.var(axis=2, ddof=1).mean(axis=0)
        assert_allclose(layer.running_mean, 0.25 * mean, rtol=1e-13)
        assert_allclose(layer.running_var, 0.75 + 0.25 * var, rtol=1e-13)

    def test_eval_uses_and_keeps_them(self, rng, x):
        kind = KINDS["InstanceNorm, tracked"]
        layer = trained(rng, kind, x)
        running = layer.running_mean.copy(), layer.running_var.copy()
        layer.eval()
        options = tracked(running) | {"training": False}
        expected, _ = cybn.forward(x, layer.gamma, layer.beta, **options)
        assert_array_equal(layer(x), expected)
        assert_array_equal((layer.running_mean, layer.running_var), running)
        layer.train()
        assert_array_equal(layer(x), cybn.instance_norm(x, layer.gamma, layer.beta)[0])

    def test_untracked_layer_uses_the_samples_own_in_eval(self, x):
        layer = cybn.InstanceNorm(6)
        expected = layer(x)
        assert_array_equal(layer.eval()(x), expected)

    def test_empty_batch_does_not_count(self):
        layer = cybn.InstanceNorm(6, track_running_stats=True)
        before = layer.state_dict()
        layer(np.empty((0, *SHAPE[1:]), np.float32))
        for key, value in layer.state_dict().items():
            assert_array_equal(value, before[key])

    def test_one_value_has_no_variance(self):
        layer = cybn.InstanceNorm(6, track_running_stats=True)
        x = np.ones((4, 6, 1), np.float32)
        with refused(ValueError, r"\bx\b", x, layer.running_mean, layer.running_var):
            layer(x)
