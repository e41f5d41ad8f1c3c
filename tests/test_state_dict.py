"""state_dict and load_state_dict: PyTorch's keys, round trips, and all or nothing."""

import contextlib
import io

import numpy as np
import pytest
from cases import DTYPES, trained_layer
from checks import refused
from numpy.testing import assert_allclose, assert_array_equal

import cybn

STATISTICS = ["running_mean", "running_var", "num_batches_tracked"]
KEYS = ["weight", "bias", *STATISTICS]


def saved_and_loaded(state):
    """Through the file format that people use; arrays only, nothing is unpickled."""
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        return dict(archive)


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, KEYS),
        ({"affine": False}, STATISTICS),
        ({"track_running_stats": False}, ["weight", "bias"]),
        ({"affine": False, "track_running_stats": False}, []),
        ({"momentum": None}, [*KEYS, "num_values_tracked"]),
    ],
)
def test_keys(options, keys):
    assert list(cybn.BatchNorm(3, **options).state_dict()) == keys


def test_values(rng):
    layer = trained_layer(rng)
    state = layer.state_dict()
    assert_array_equal(state["weight"], layer.gamma)
    assert_array_equal(state["bias"], layer.beta)
    assert_array_equal(state["running_mean"], layer.running_mean)
    assert_array_equal(state["running_var"], layer.running_var)
    assert state["num_batches_tracked"] == 2
    assert np.asarray(state["num_batches_tracked"]).dtype == np.int64


def test_number_of_values_tracked(rng):
    state = trained_layer(rng, momentum=None).state_dict()
    assert state["num_values_tracked"] == 8 + 5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_round_trip(rng, affine, momentum, dtype):
    options = {"affine": affine, "momentum": momentum, "dtype": dtype}
    layer = trained_layer(rng, **options)
    state = saved_and_loaded(layer.state_dict())
    twin = cybn.BatchNorm(3, **options)

    twin.load_state_dict(state)

    for key, value in twin.state_dict().items():
        assert_array_equal(value, state[key])
        assert np.asarray(value).dtype == state[key].dtype
    x = rng.normal(size=(4, 3))
    layer.eval()
    twin.eval()
    assert_array_equal(twin(x), layer(x))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_resumed_run_equals_one_that_was_not_interrupted(rng, momentum):
    layer = trained_layer(rng, momentum=momentum)
    twin = cybn.BatchNorm(3, momentum=momentum)
    twin.load_state_dict(saved_and_loaded(layer.state_dict()))
    for n in (2, 100):
        x = rng.normal(size=(n, 3))
        assert_array_equal(twin(x), layer(x))
    for key, value in layer.state_dict().items():
        assert_allclose(twin.state_dict()[key], value, rtol=1e-14)


def test_loaded_arrays_are_copied(rng):
    """Training after loading does not write into the caller's dict."""
    state = saved_and_loaded(trained_layer(rng).state_dict())
    before = {key: value.copy() for key, value in state.items()}
    layer = cybn.BatchNorm(3)
    layer.load_state_dict(state)
    layer(rng.normal(size=(8, 3)))
    layer.gamma += 1
    layer.beta += 1
    for key, value in state.items():
        assert_array_equal(value, before[key])


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_converted_to_the_layers_dtype(rng, dtype):
    other = np.float64 if dtype == np.float32 else np.float32
    state = trained_layer(rng, dtype=other).state_dict()
    layer = cybn.BatchNorm(3, dtype=dtype)
    layer.load_state_dict(state)
    for array, key in ((layer.gamma, "weight"), (layer.running_var, "running_var")):
        assert array.dtype == dtype
        assert_array_equal(array, np.asarray(state[key]).astype(dtype))


BAD_VALUES = [
    ("weight", np.ones(4), ValueError),
    ("bias", np.ones((3, 1)), ValueError),
    ("bias", np.float32(1), ValueError),
    ("running_mean", np.ones(2), ValueError),
    ("running_var", np.ones((1, 3)), ValueError),
    ("num_batches_tracked", np.array([1, 2]), ValueError),
    ("num_batches_tracked", -1, ValueError),
    ("num_batches_tracked", 1.5, TypeError),
    ("num_batches_tracked", "many", TypeError),
    ("weight", np.ones(3, complex), TypeError),
    ("bias", np.array(["a", "b", "c"]), TypeError),
    ("running_mean", np.array([None, None, None]), TypeError),
    ("running_var", None, TypeError),
    ("weight", np.ma.masked_array(np.ones(3), [True, False, False]), TypeError),
    ("weight", [1.0, [2.0], 3.0], ValueError),
]


@pytest.mark.parametrize(("key", "value", "error"), BAD_VALUES)
def test_bad_value_is_named_and_nothing_loaded(rng, key, value, error):
    good = trained_layer(rng).state_dict()
    assert_refused(rng, good | {key: value}, error, key)


@pytest.mark.parametrize("key", ["weight", "bias", "running_mean", "running_var"])
def test_missing_key_is_named_and_nothing_loaded(rng, key):
    state = trained_layer(rng).state_dict()
    del state[key]
    assert_refused(rng, state, ValueError, key)


@pytest.mark.parametrize("key", ["gamma", "num_values_tracked", "bn1.weight"])
def test_unknown_key_is_named_and_nothing_loaded(rng, key):
    state = trained_layer(rng).state_dict() | {key: np.ones(3)}
    assert_refused(rng, state, ValueError, key)


@pytest.mark.parametrize("state", [None, 1, "state", [("weight", np.ones(3))]])
def test_state_that_is_no_mapping(rng, state):
    assert_refused(rng, state, TypeError, r"\bstate")


def test_all_or_nothing_where_an_array_cannot_be_written(rng):
    layer = cybn.BatchNorm(3)
    layer.running_var = np.broadcast_to(np.float32(1), 3)  # read-only
    before = {key: np.array(value) for key, value in layer.state_dict().items()}
    state = trained_layer(rng).state_dict()
    with contextlib.suppress(ValueError):
        layer.load_state_dict(state)
    expected = before if layer.num_batches_tracked == 0 else state
    for key, value in layer.state_dict().items():
        assert_array_equal(value, expected[key])


def test_entries_may_be_the_layers_own_arrays(rng):
    layer = trained_layer(rng)
    state = layer.state_dict()
    own = {"weight": layer.beta, "bias": layer.gamma, "running_var": layer.running_var[::-1]}
    layer.load_state_dict(state | own)
    assert_array_equal(layer.gamma, state["bias"])
    assert_array_equal(layer.beta, state["weight"])
    assert_array_equal(layer.running_var, state["running_var"][::-1])


def test_unknown_keys_of_several_types(rng):
    state = trained_layer(rng).state_dict() | {"gamma": 1, 3: 1, (1, 2): 1, None: 1}
    assert_refused(rng, state, ValueError, r"state: unknown key \(1, 2\), 3, None, gamma")


@pytest.mark.parametrize("key", ["num_batches_tracked", "num_values_tracked"])
def test_count_that_cannot_be_counted_on_from(rng, key):
    layer = trained_layer(rng, momentum=None)
    before = layer.state_dict()
    with refused(ValueError, rf"\b{key}\b", layer.gamma):
        layer.load_state_dict(before | {key: 2**62})
    layer.load_state_dict(before | {key: 2**60})
    layer(rng.normal(size=(5, 3)))
    assert layer.num_batches_tracked > 2
    layer.state_dict()


def test_values_beyond_float32_are_infinite(rng):
    layer = trained_layer(rng)
    layer.load_state_dict(layer.state_dict() | {"running_var": np.array([1.0, 1e300, 2.0])})
    assert_array_equal(layer.running_var, [1, np.inf, 2])


def test_layer_with_a_list_for_an_array(rng):
    """Then nothing is loaded, and the key is named."""
    layer = trained_layer(rng)
    state = layer.state_dict()
    layer.running_var = [1.0, 1.0, 1.0]
    with refused(TypeError, r"\brunning_var\b", layer.gamma, layer.beta, layer.running_mean):
        layer.load_state_dict({key: np.array(value) + 1 for key, value in state.items()})
    assert layer.num_batches_tracked == 2


def state_of_a_model(layer):
    """With layers whose names are parts of each other, and a key that is no string."""
    other = cybn.BatchNorm(4).state_dict()
    layers = {"bn1.": layer.state_dict(), "bn10.": other, "old.bn1.": other}
    state = {prefix + key: v for prefix, keys in layers.items() for key, v in keys.items()}
    return state | {"weight": np.ones(3), "bn1": np.ones(3), 7: np.ones(3)}


@pytest.mark.parametrize("momentum", [0.1, None])
def test_prefix_takes_a_layer_out_of_a_model(rng, momentum):
    layer = trained_layer(rng, momentum=momentum)
    twin = cybn.BatchNorm(3, momentum=momentum)
    twin.load_state_dict(state_of_a_model(layer), prefix="bn1.")
    for key, value in layer.state_dict().items():
        assert_array_equal(twin.state_dict()[key], value)


def test_prefix_and_the_layers_around_batch_norm(rng):
    layer = cybn.LayerNorm((2, 3))
    state = {"a.weight": rng.normal(size=(2, 3)), "a.bias": rng.normal(size=(2, 3)), "b.weight": 0}
    layer.load_state_dict(saved_and_loaded(state), "a.")
    assert_array_equal(layer.gamma, state["a.weight"].astype(np.float32))
    assert_array_equal(layer.beta, state["a.bias"].astype(np.float32))


@pytest.mark.parametrize(
    ("prefix", "error", "match"),
    [
        ("", ValueError, r"state: unknown key 7, bn1, bn1\.bias, .*, bn10\.weight, "),
        ("bn1", ValueError, r"state: missing key bn1weight, bn1bias, .*; pass prefix='bn1\.'\?"),
        ("bn", ValueError, r"state: missing key bnweight, bnbias, .*; pass prefix='bn1\.'\?"),
        ("bn2.", ValueError, r"state: missing key bn2\.weight, [^;]*$"),
        ("bn10.", ValueError, r"state\['bn10\.weight'\]: expected shape \(3,\)"),
        (None, TypeError, "prefix: expected a str, got NoneType"),
        (1, TypeError, "prefix: "),
    ],
)
def test_prefix_that_does_not_fit(rng, prefix, error, match):
    model = state_of_a_model(trained_layer(rng))
    if prefix == "":
        model |= trained_layer(rng).state_dict()
    assert_refused(rng, model, error, match, prefix)


def test_prefix_that_is_missing(rng):
    """Of the layers of a model the error names the one whose arrays have the shapes."""
    linear = {"0.weight": np.ones((3, 5)), "0.bias": np.ones(3)}
    model = linear | {f"1.{key}": value for key, value in trained_layer(rng).state_dict().items()}
    assert_refused(rng, model, ValueError, r"state: missing key .*; pass prefix='1\.'\?$")
    assert_refused(rng, linear, ValueError, "state: missing key [^;]*$")


def test_unknown_key_behind_the_prefix(rng):
    model = state_of_a_model(trained_layer(rng)) | {"bn1.gamma": np.ones(3)}
    assert_refused(rng, model, ValueError, r"state: unknown key bn1\.gamma$", "bn1.")


@pytest.mark.parametrize("prefix", ["", "bn."])
def test_missing_count_of_batches_is_0(rng, prefix):
    layer = trained_layer(rng)
    state = {prefix + key: value for key, value in layer.state_dict().items()}
    del state[f"{prefix}num_batches_tracked"]
    twin = trained_layer(rng)
    twin.load_state_dict(state, prefix)
    assert twin.num_batches_tracked == 0
    x = rng.normal(size=(4, 3))
    assert_array_equal(twin.eval()(x), layer.eval()(x))
    assert_array_equal(twin.train()(x), layer.train()(x))
    assert_array_equal(twin.running_var, layer.running_var)


def test_missing_count_of_values_means_that_training_begins_anew(rng):
    """Whatever the running statistics were, and with every count that belongs to them."""
    layer = trained_layer(rng, momentum=None)
    state = layer.state_dict()
    del state["num_values_tracked"]
    state["running_mean"][0] = np.inf
    twin = trained_layer(rng, momentum=None)
    twin.load_state_dict(state)
    assert (twin.num_batches_tracked, twin.num_values_tracked) == (2, 0)
    assert_array_equal(twin.running_var, layer.running_var)

    fresh = cybn.BatchNorm(3, momentum=None)
    fresh.gamma[:], fresh.beta[:] = layer.gamma, layer.beta
    for n in (5, 3):
        x = rng.normal(1e6, 2.0, size=(n, 3))
        assert_array_equal(twin(x), fresh(x))
    for key, value in fresh.state_dict().items():
        assert_array_equal(twin.state_dict()[key], value)


def assert_refused(rng, state, error, match, prefix=""):
    layer = trained_layer(rng)
    before = {key: np.array(value) for key, value in layer.state_dict().items()}
    arrays = layer.gamma, layer.beta, layer.running_mean, layer.running_var
    with refused(error, match, *arrays):
        layer.load_state_dict(state, prefix)
    for key, value in layer.state_dict().items():
        assert_array_equal(value, before[key])
