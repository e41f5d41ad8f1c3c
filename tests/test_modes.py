"""Training and inference of all layers: of a layer, of one call, and what a call keeps alive."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from checks import refused
from numpy.testing import assert_array_equal

import cybn

LAYERS = {
    "BatchNorm": lambda: cybn.BatchNorm(6),
    "BatchNorm, pooled": lambda: cybn.BatchNorm(6, momentum=None),
    "BatchNorm, untracked": lambda: cybn.BatchNorm(6, track_running_stats=False),
    "LayerNorm": lambda: cybn.LayerNorm(5),
    "RMSNorm": lambda: cybn.RMSNorm(5),
    "GroupNorm": lambda: cybn.GroupNorm(3, 6),
    "InstanceNorm": lambda: cybn.InstanceNorm(6),
    "InstanceNorm, tracked": lambda: cybn.InstanceNorm(6, track_running_stats=True),
}
all_layers = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
TRACKING = [name for name in LAYERS if name in ("BatchNorm", "InstanceNorm, tracked")]
tracking_layers = pytest.mark.parametrize("make", [LAYERS[name] for name in TRACKING], ids=TRACKING)


def frozen(layer):
    """The layer, frozen if it can be."""
    tracks = isinstance(layer, cybn.BatchNorm) and layer.track_running_stats
    return layer.freeze() if tracks else layer


INFERENCE = {
    "eval": lambda layer, x: layer.eval()(x),
    "one call": lambda layer, x: layer(x, training=False),
    "frozen, too": lambda layer, x: frozen(layer).eval()(x),
}
in_inference = pytest.mark.parametrize("infer", INFERENCE.values(), ids=INFERENCE)


def draw(seed=0):
    return np.random.default_rng(seed).normal(3.0, 2.0, (4, 6, 5)).astype(np.float32)


def trained(make):
    layer = make()
    for seed in range(2):
        layer(draw(seed))
    return layer


@in_inference
@all_layers
def test_inference_keeps_nothing_alive(make, infer):
    layer = make()
    layer(draw())  # what it kept goes, too
    x = draw(1)
    gone = weakref.ref(x)

    infer(layer, x)

    assert layer.cache is None
    del x
    gc.collect()
    assert gone() is None


@in_inference
@all_layers
def test_backward_after_inference_says_what_to_do(make, infer):
    layer = make()
    layer(draw())
    infer(layer, draw(1))
    advice = r"train\(\).*freeze\(\)" if isinstance(layer, cybn.BatchNorm) else r"train\(\)"
    with refused(ValueError, rf"backward: expected a call.*keeps nothing for backward; .*{advice}"):
        layer.backward(draw(2))


@all_layers
def test_backward_before_any_call(make):
    with refused(ValueError, "backward: expected a call.*got none"):
        make().backward(draw())


@pytest.mark.parametrize("track_first", [True, False])
def test_freeze_trains_through_the_running_statistics(track_first):
    """Wherever `freeze` stands beside `train`."""
    layer, x, dy = trained(LAYERS["BatchNorm"]), draw(3), draw(4)
    running = {"running_mean": layer.running_mean, "running_var": layer.running_var}
    expected_y, cache = cybn.batch_norm(x, layer.gamma, layer.beta, training=False, **running)
    expected = cybn.backward(dy, cache)

    layer.eval()
    layer = layer.train().freeze() if track_first else layer.freeze().train()

    assert_array_equal(layer(x), expected_y)
    assert_array_equal(layer.backward(dy), expected.dx)
    assert_array_equal(layer.dgamma, expected.dgamma)


@all_layers
def test_one_call_in_inference_is_a_call_after_eval(make):
    layer, x = trained(make), draw(3)
    before = layer.state_dict()
    expected = copy.deepcopy(layer).eval()(x)
    out = np.empty_like(x)

    assert_array_equal(layer(x, training=False), expected)
    assert layer(x, training=False, out=out) is out

    assert layer.training
    for key, value in layer.state_dict().items():
        assert_array_equal(value, before[key])


@all_layers
def test_one_call_in_training_is_a_call_after_train(make):
    layer, x, dy = trained(make).eval(), draw(3), draw(4)
    twin = copy.deepcopy(layer).train()

    assert_array_equal(layer(x, training=True), twin(x))

    assert_array_equal(layer.backward(dy), twin.backward(dy))
    assert not layer.training
    for key, value in layer.state_dict().items():
        assert_array_equal(value, twin.state_dict()[key])


def test_a_frozen_layer_is_not_thawed_by_one_call():
    layer = trained(LAYERS["BatchNorm"]).freeze()
    before, x = layer.state_dict(), draw(3)
    assert_array_equal(layer(x, training=True), copy.deepcopy(layer).eval()(x))
    for key, value in layer.state_dict().items():
        assert_array_equal(value, before[key])


@pytest.mark.parametrize("training", [np.True_, np.False_])
@tracking_layers
def test_numpy_bool(make, training):
    layer, x = trained(make), draw(3)
    assert_array_equal(
        copy.deepcopy(layer)(x, training=training), layer(x, training=bool(training))
    )


@pytest.mark.parametrize("training", [1, "no", np.ones(1)])
@all_layers
def test_training_that_is_no_bool(make, training):
    layer = make()
    with refused(TypeError, r"\btraining\b: expected a bool"):
        layer(draw(), training=training)
    assert layer.cache is None


def test_calibrate_keeps_nothing_alive():
    layer = cybn.BatchNorm(6).eval()
    x = draw()
    gone = weakref.ref(x)
    with cybn.calibrate(layer):
        layer(x)
        assert layer.cache is not None
    del x
    gc.collect()
    assert gone() is None


def test_calibrate_lets_the_last_call_in_training_stand():
    layer, x, dy = cybn.BatchNorm(6), draw(), draw(1)
    layer(x)
    expected = cybn.backward(dy, layer.cache)
    with cybn.calibrate(layer):
        layer(draw(2))
    assert_array_equal(layer.backward(dy), expected.dx)


def test_a_copy_from_inside_of_calibrate_has_no_cache():
    layer = cybn.BatchNorm(6)
    layer(draw())
    with cybn.calibrate(layer):
        assert pickle.loads(pickle.dumps(layer)).cache is None
