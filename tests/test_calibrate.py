"""calibrate: running statistics of a new domain, exactly those of all that passes through."""

import copy
import pickle

import numpy as np
import pytest
from cases import DTYPES, trained_layer
from numpy.testing import assert_allclose, assert_array_equal

import cybn

SIZES = (100, 2, 7, 33)


def batches(rng, dtype=np.float32):
    """Batches of very different sizes and means."""
    return [rng.normal(50.0 + i, 1.0 + i, (n, 3, 2)).astype(dtype) for i, n in enumerate(SIZES)]


def assert_pooled(layer, given, rtol=1e-12):
    """Two-pass statistics of the concatenation; the variance is the unbiased one."""
    seen = np.concatenate(given).astype(np.longdouble)
    mean, var = seen.mean(axis=(0, 2)), seen.var(axis=(0, 2), ddof=1)
    rtol = max(rtol, np.finfo(layer.running_mean.dtype).eps)
    assert_allclose(layer.running_mean, mean, rtol=rtol)
    assert_allclose(layer.running_var, var, rtol=rtol)


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, None])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["train", "eval", "freeze"])
def test_leaves_the_pooled_statistics_and_restores_the_rest(rng, mode, dtype, momentum):
    layer = trained_layer(rng, momentum=momentum, dtype=dtype)
    getattr(layer, mode)()
    parameters = layer.gamma.copy(), layer.beta.copy()
    dtypes = layer.running_mean.dtype, layer.running_var.dtype
    target = batches(rng)

    with cybn.calibrate(layer):
        for batch in target:
            layer(batch)

    assert_pooled(layer, target)
    assert layer.training == (mode == "train")
    assert layer.momentum == momentum
    assert (layer.running_mean.dtype, layer.running_var.dtype) == dtypes
    assert_array_equal((layer.gamma, layer.beta), parameters)
    assert layer.train().training == (mode != "freeze")


def test_batches_are_normalized_by_their_own_statistics(rng):
    layer = trained_layer(rng).eval()
    with cybn.calibrate(layer):
        for batch in batches(rng):
            expected, _ = cybn.forward(batch, layer.gamma, layer.beta)
            assert_array_equal(layer(batch), expected)


def test_inference_afterwards_uses_the_new_statistics(rng):
    layer = trained_layer(rng, dtype=np.float64).eval()
    target = batches(rng)
    with cybn.calibrate(layer):
        for batch in target:
            layer(batch)
    pooled = np.concatenate(target).astype(np.float64)
    mean, var = pooled.mean(axis=(0, 2)), pooled.var(axis=(0, 2), ddof=1)
    expected, _ = cybn.forward(
        target[0], layer.gamma, layer.beta, running_mean=mean, running_var=var, training=False
    )
    assert_allclose(layer(target[0]), expected, rtol=1e-6, atol=1e-6)


def test_several_layers(rng):
    first, second = (trained_layer(rng, dtype=np.float64) for _ in range(2))
    second.eval()
    target = batches(rng)
    passed = []
    with cybn.calibrate(first, second):
        for batch in target:
            passed.append(first(batch))
            second(passed[-1])
    assert_pooled(first, target)
    assert_pooled(second, passed)
    assert first.training
    assert not second.training


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("mode", ["train", "eval", "freeze"])
def test_body_that_raises(rng, mode, momentum):
    """Mode and momentum are restored, and the statistics are those of what did pass."""
    layer = trained_layer(rng, momentum=momentum)
    getattr(layer, mode)()
    target = batches(rng)
    with pytest.raises(KeyError, match="on the way"), cybn.calibrate(layer):  # noqa: PT012
        for batch in target[:2]:
            layer(batch)
        raise KeyError("on the way")
    assert layer.training == (mode == "train")
    assert layer.train().training == (mode != "freeze")
    assert layer.momentum == momentum
    assert_pooled(layer, target[:2])


@pytest.mark.parametrize("momentum", [0.1, None])
def test_nothing_passes_through(rng, momentum):
    layer = trained_layer(rng, momentum=momentum)
    before = copy.deepcopy(layer.state_dict())
    with cybn.calibrate(layer):
        layer(np.empty((0, 3), np.float32))
    for key, value in layer.state_dict().items():
        assert_array_equal(value, before[key], err_msg=key)


def test_counts_are_those_of_what_passed_through(rng):
    """So that pooling can go on from there."""
    layer = trained_layer(rng, momentum=None)
    target = batches(rng)
    with cybn.calibrate(layer):
        for batch in target:
            layer(batch)
    assert layer.num_batches_tracked == len(SIZES)
    assert layer.num_values_tracked == 2 * sum(SIZES)
    layer(target[0])
    assert_pooled(layer, [*target, target[0]])


def test_training_goes_on_with_the_layers_momentum(rng):
    layer = trained_layer(rng, momentum=0.25, dtype=np.float64)
    target = batches(rng)
    with cybn.calibrate(layer):
        for batch in target:
            layer(batch)
    mean = layer.running_mean.copy()
    layer(target[0])
    expected = 0.75 * mean + 0.25 * target[0].astype(np.float64).mean(axis=(0, 2))
    assert_allclose(layer.running_mean, expected, rtol=1e-14)


def test_masked_batches(rng):
    layer = trained_layer(rng)
    target = batches(rng)
    with cybn.calibrate(layer):
        for batch in target:
            padded = np.concatenate([batch, np.full_like(batch, np.nan)])
            layer(padded, where=(np.arange(len(padded)) < len(batch))[:, None, None])
    assert_pooled(layer, target)


def test_twice(rng):
    """The second calibration forgets the first."""
    layer = trained_layer(rng)
    for target in (batches(rng), batches(rng)[::2]):
        with cybn.calibrate(layer):
            for batch in target:
                layer(batch)
        assert_pooled(layer, target)


def test_layer_without_running_statistics(rng):
    good = trained_layer(rng).eval()
    bad = cybn.BatchNorm(3, track_running_stats=False)
    before = copy.deepcopy(good.state_dict())
    with pytest.raises(ValueError, match="track_running_stats"), cybn.calibrate(good, bad):
        pytest.fail("the body must not run")
    assert not good.training
    for key, value in good.state_dict().items():
        assert_array_equal(value, before[key])


@pytest.mark.parametrize("layer", [None, "bn", [], cybn.BatchNorm])
def test_what_is_no_batch_norm(rng, layer):
    good = trained_layer(rng).eval()
    with pytest.raises(TypeError, match="BatchNorm"), cybn.calibrate(good, layer):
        pytest.fail("the body must not run")
    assert not good.training


class TestNested:
    """The values of the inner body pass through the outer one, too."""

    def test_inner_values_are_pooled_with_the_outer_ones(self, rng):
        layer = trained_layer(rng, dtype=np.float64).eval()
        target = batches(rng)
        with cybn.calibrate(layer):
            layer(target[0])
            with cybn.calibrate(layer):
                layer(target[1])
                layer(target[2])
            layer(target[3])
            assert layer.training
        assert_pooled(layer, target)
        assert layer.num_batches_tracked == len(target)
        assert (layer.training, layer.momentum) == (False, 0.1)

    def test_nothing_passes_through_the_inner_one(self, rng):
        layer = trained_layer(rng)
        target = batches(rng)
        with cybn.calibrate(layer):
            layer(target[0])
            with cybn.calibrate(layer):
                pass
        assert_pooled(layer, target[:1])

    def test_the_same_layer_twice(self, rng):
        layer, other = trained_layer(rng).eval(), trained_layer(rng)
        target = batches(rng)
        with cybn.calibrate(layer, other, layer):
            for batch in target:
                other(layer(batch))
        assert_pooled(layer, target)
        assert (layer.training, layer.momentum) == (False, 0.1)
        assert other.num_batches_tracked == len(target)


def test_running_arrays_stay_the_layers_own(rng):
    layer = trained_layer(rng)
    arrays = layer.running_mean, layer.running_var
    with cybn.calibrate(layer):
        layer(batches(rng)[0])
    assert layer.running_mean is arrays[0]
    assert layer.running_var is arrays[1]


@pytest.mark.parametrize("make", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copy_made_in_the_body_is_not_calibrated(rng, make):
    layer = trained_layer(rng).eval()
    target = batches(rng)
    with cybn.calibrate(layer):
        layer(target[0])
        twin = make(layer)
    assert (twin.training, twin.momentum) == (False, 0.1)
    twin(target[1])
    assert_pooled(twin, target[:1])


@pytest.mark.parametrize("momentum", [0.1, None])
def test_what_float32_cannot_hold_is_infinite_without_a_warning(momentum):
    """As where the kernels round."""
    layer = cybn.BatchNorm(1, momentum=momentum)
    layer.running_mean, layer.running_var = np.zeros(1, np.float32), np.ones(1, np.float32)
    with cybn.calibrate(layer):
        layer(np.array([[1e100], [2e100]]))
    assert_array_equal((layer.running_mean, layer.running_var), [[np.inf], [np.inf]])


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_body_may_reset_load_and_save(rng, momentum):
    layer = trained_layer(rng, momentum=momentum)
    dtype, state, target = layer.running_mean.dtype, layer.state_dict(), batches(rng)
    with cybn.calibrate(layer):
        layer(target[0])
        assert layer.state_dict().keys() == state.keys()
        layer.load_state_dict(state)
        assert_array_equal(layer.running_mean, state["running_mean"])
        layer.reset_running_stats()
        assert layer.num_batches_tracked == 0
        layer(target[1])
    assert_pooled(layer, target[1:2])
    assert layer.running_mean.dtype == dtype
