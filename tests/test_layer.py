"""BatchNorm: modes, running statistics, gradients, copies. Its state dict has a file of its own."""

import copy

import numpy as np
import pytest
from cases import COPIES, DTYPES, tracked, trained_layer
from checks import refused
from numpy.testing import assert_array_equal

import cybn


@pytest.fixture
def x(rng):
    return rng.normal(3.0, 2.0, (8, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_new_layer(dtype):
    layer = cybn.BatchNorm(3, dtype=dtype)
    assert layer.training
    assert layer.num_batches_tracked == 0
    for array, value in (
        (layer.gamma, 1),
        (layer.beta, 0),
        (layer.running_mean, 0),
        (layer.running_var, 1),
    ):
        assert_array_equal(array, np.full(3, value))
        assert array.dtype == dtype


def test_training_is_forward_with_the_layers_own_arrays(rng, x):
    layer = trained_layer(rng, eps=1e-3, momentum=0.3)
    running = layer.running_mean.copy(), layer.running_var.copy()
    expected, cache = cybn.forward(
        x, layer.gamma, layer.beta, **tracked(running), momentum=0.3, eps=1e-3
    )

    assert_array_equal(layer(x), expected)
    assert_array_equal(layer.running_mean, running[0])
    assert_array_equal(layer.running_var, running[1])
    assert layer.num_batches_tracked == 3
    assert_array_equal(layer.cache.mean, cache.mean)


def test_eval_is_inference(rng, x):
    layer = trained_layer(rng)
    layer.eval()
    before = layer.running_mean.copy(), layer.running_var.copy()
    expected, _ = cybn.forward(x, layer.gamma, layer.beta, **tracked(before), training=False)

    assert not layer.training
    assert_array_equal(layer(x), expected)
    assert_array_equal((layer.running_mean, layer.running_var), before)
    assert layer.num_batches_tracked == 2


def test_train_undoes_eval(rng, x):
    layer = trained_layer(rng)
    expected = copy.deepcopy(layer)(x)
    layer.eval()
    layer(x)
    layer.train()
    assert layer.training
    assert_array_equal(layer(x), expected)


def test_train_does_not_undo_freeze(rng, x):
    layer = trained_layer(rng)
    before = layer.running_mean.copy(), layer.running_var.copy()
    expected = copy.deepcopy(layer)
    expected.eval()
    layer.freeze()
    layer.train()
    assert_array_equal(layer(x), expected(x))
    assert_array_equal((layer.running_mean, layer.running_var), before)
    assert layer.num_batches_tracked == 2
    layer.backward(x)
    assert layer.dgamma is not None, "its parameters go on learning"


def test_modes_can_be_chained_and_undone(rng, x):
    layer = trained_layer(rng)
    assert layer.eval() is layer
    assert layer.train() is layer
    assert layer.freeze() is layer
    assert not layer.training
    assert layer.freeze(False).training
    assert not layer.train(False).training


@pytest.mark.parametrize("mode", ["train", "freeze"])
def test_mode_that_is_no_bool(mode):
    layer = cybn.BatchNorm(3)
    with pytest.raises(TypeError, match=r"\bmode\b"):
        getattr(layer, mode)("yes")


def test_freeze_needs_running_statistics():
    with pytest.raises(ValueError, match="track_running_stats"):
        cybn.BatchNorm(3, track_running_stats=False).freeze()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_reset_running_stats(rng, x, momentum):
    layer = trained_layer(rng, momentum=momentum)
    layer.reset_running_stats()
    new = cybn.BatchNorm(3, momentum=momentum)
    new.gamma[:], new.beta[:] = layer.gamma, layer.beta
    for state in range(2):
        for key, value in new.state_dict().items():
            assert_array_equal(layer.state_dict()[key], value, err_msg=f"{key}, {state} batches")
        layer(x)
        new(x)


@pytest.mark.parametrize("mode", ["train", "freeze"])
def test_out(rng, x, mode):
    layer = trained_layer(rng)
    getattr(layer, mode)()
    twin = copy.deepcopy(layer)
    y, dx = np.empty_like(x), np.empty_like(x)
    assert layer(x, out=y) is y
    assert layer.backward(x, out=dx) is dx
    assert_array_equal(y, twin(x))
    assert_array_equal(dx, twin.backward(x))


@pytest.mark.parametrize("mode", ["train", "freeze"])
def test_backward(rng, x, mode):
    layer = trained_layer(rng)
    getattr(layer, mode)()
    layer(x)
    dy = rng.normal(size=x.shape).astype(np.float32)

    dx = layer.backward(dy)

    expected = cybn.backward(dy, layer.cache)
    assert_array_equal(dx, expected.dx)
    assert_array_equal(layer.dgamma, expected.dgamma)
    assert_array_equal(layer.dbeta, expected.dbeta)


def test_gradient_descent(x):
    """gamma and beta can be updated in place and assigned to."""
    layer = cybn.BatchNorm(3)
    layer(x)
    layer.backward(x)
    dgamma, dbeta = layer.dgamma, layer.dbeta
    layer.gamma -= 0.5 * dgamma
    layer.beta = layer.beta - np.float32(0.5) * dbeta
    expected, _ = cybn.forward(x, 1 - 0.5 * dgamma, -np.float32(0.5) * dbeta)
    assert_array_equal(layer(x), expected)


def test_last_call_counts(rng, x):
    layer = cybn.BatchNorm(3)
    layer(x)
    layer(x[:5])
    assert np.shares_memory(layer.cache.x, x)
    assert layer.cache.x.shape == (5, 3, 4)


def test_backward_before_forward(x):
    with refused(ValueError, "forward", x):
        cybn.BatchNorm(3).backward(x)


def test_without_parameters(x):
    layer = cybn.BatchNorm(3, affine=False)
    assert layer.gamma is None
    assert layer.beta is None
    assert_array_equal(layer(x), cybn.forward(x)[0])
    layer.backward(x)
    assert layer.dgamma is None
    assert layer.dbeta is None


def test_without_running_statistics_eval_uses_the_batch(x):
    """As PyTorch does."""
    layer = cybn.BatchNorm(3, track_running_stats=False)
    assert layer.running_mean is None
    assert layer.running_var is None
    expected = cybn.forward(x)[0]
    assert_array_equal(layer(x), expected)
    layer.eval()
    assert_array_equal(layer(x), expected)


@pytest.mark.parametrize("axis", [0, -1, 2])
def test_axis(rng, axis):
    x = rng.normal(size=(3, 5, 3))
    assert_array_equal(cybn.BatchNorm(3, axis=axis)(x), cybn.forward(x, axis=axis)[0])


def test_dtypes_of_layer_and_input_are_independent(rng):
    x = rng.normal(size=(8, 3))
    layer = cybn.BatchNorm(3, dtype=np.float32)
    assert layer(x).dtype == np.float64
    assert layer.backward(x).dtype == np.float64
    assert layer.dgamma.dtype == layer.running_mean.dtype == np.float32
    assert cybn.BatchNorm(3, dtype=np.float64)(x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "f8", np.dtype("float32"), float])
def test_dtype_may_be_anything_that_names_one(dtype):
    assert cybn.BatchNorm(3, dtype=dtype).gamma.dtype == np.dtype(dtype)


def test_empty_batch_does_not_count(rng):
    layer = trained_layer(rng)
    before = layer.running_mean.copy(), layer.running_var.copy()
    assert layer(np.empty((0, 3), np.float32)).shape == (0, 3)
    assert_array_equal((layer.running_mean, layer.running_var), before)
    assert layer.num_batches_tracked == 2


BAD_BATCHES = {
    "more channels": (np.ones((8, 4)), ValueError),
    "one channel": (np.ones((8, 1)), ValueError),
    "one value": (np.ones((1, 3)), ValueError),
    "too few dimensions": (np.ones(3), ValueError),
    "complex": (np.ones((8, 3), complex), TypeError),
}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("bad", "error"), BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_refused_batch_leaves_the_layer_as_it_was(rng, bad, error, momentum, affine):
    layer = trained_layer(rng, momentum=momentum, affine=affine)
    before = copy.deepcopy(layer.state_dict())
    with refused(error, r"\b(x|axis|num_features)\b", bad):
        layer(bad)
    for key, value in layer.state_dict().items():
        assert_array_equal(value, before[key])


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("channels", [1, 4])
def test_number_of_channels_is_checked_without_running_statistics(channels, affine):
    layer = cybn.BatchNorm(3, affine=affine, track_running_stats=False)
    with pytest.raises(ValueError, match=r"\b(x|num_features)\b"):
        layer(np.ones((8, channels)))


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"num_features": 0}, ValueError, "num_features"),
        ({"num_features": -3}, ValueError, "num_features"),
        ({"num_features": 3.0}, TypeError, "num_features"),
        ({"num_features": "3"}, TypeError, "num_features"),
        ({"num_features": None}, TypeError, "num_features"),
        ({"axis": 1.0}, TypeError, "axis"),
        ({"eps": 0.0}, ValueError, "eps"),
        ({"eps": np.nan}, ValueError, "eps"),
        ({"eps": "small"}, TypeError, "eps"),
        ({"momentum": 1.5}, ValueError, "momentum"),
        ({"momentum": -0.5}, ValueError, "momentum"),
        ({"momentum": "0.1"}, TypeError, "momentum"),
        ({"affine": "no"}, TypeError, "affine"),
        ({"track_running_stats": None}, TypeError, "track_running_stats"),
        ({"dtype": "V2"}, (TypeError, ValueError), "dtype"),
        ({"dtype": np.int32}, (TypeError, ValueError), "dtype"),
        ({"dtype": complex}, (TypeError, ValueError), "dtype"),
        ({"dtype": "f5"}, (TypeError, ValueError), "dtype"),
    ],
)
def test_bad_arguments(options, error, name):
    with pytest.raises(error, match=rf"\b{name}\b"):
        cybn.BatchNorm(**{"num_features": 3} | options)


def test_options_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        cybn.BatchNorm(3, 1)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies_are_equal_and_independent(rng, x, make, momentum):
    layer = trained_layer(rng, momentum=momentum, eps=1e-3)
    twin = make(layer)
    expected = copy.deepcopy(layer.state_dict())

    assert_array_equal(twin(x), layer(x))
    assert_array_equal(twin.running_var, layer.running_var)
    assert_array_equal(twin.backward(x), layer.backward(x))

    layer.load_state_dict(expected)
    twin(x + 5)
    for key, value in layer.state_dict().items():
        assert_array_equal(value, expected[key])


def test_shallow_copy_computes_the_same(rng, x):
    layer = trained_layer(rng)
    layer.eval()
    twin = copy.copy(layer)
    assert not twin.training
    assert_array_equal(twin(x), layer(x))
    twin.train()
    assert not layer.training


@pytest.mark.parametrize("mode", ["eval", "freeze"])
@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies_keep_the_mode(rng, x, make, mode):
    layer = trained_layer(rng)
    getattr(layer, mode)()
    twin = make(layer)
    assert not twin.training
    twin.train()
    assert twin.training == (mode == "eval")


def test_repr_is_the_call_that_makes_the_layer():
    layer = cybn.BatchNorm(3, axis=-1, eps=1e-3, momentum=None, affine=False)
    text = repr(layer)
    assert text.startswith("BatchNorm(3")
    for option in ("axis=-1", "eps=0.001", "momentum=None", "affine=False"):
        assert option in text
