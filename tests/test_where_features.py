"""A mask per feature on one channel axis: what is missing is left out, channel by channel."""

import copy
import pickle

import numpy as np
import pytest
import reference
from cases import DTYPES
from checks import assert_close, refused
from numpy.testing import assert_allclose, assert_array_equal

import cybn

SHAPES = {
    "N, C": ((257, 33), 1),
    "NCHW": ((3, 17, 9, 11), 1),
    "NHWC": ((3, 9, 11, 17), -1),
    "channels first": ((5, 40, 7), 0),
}
all_shapes = pytest.mark.parametrize(("shape", "axis"), SHAPES.values(), ids=SHAPES)
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-13}


def draw(rng, shape, axis, dtype=np.float64):
    """x with NaN for what is missing: more of it in each channel, and all of the last one."""
    x = rng.normal(5.0, 2.0, shape).astype(dtype)
    channels = np.moveaxis(x, axis, -1)
    channels[rng.random(channels.shape) < np.linspace(0.0, 0.6, channels.shape[-1])] = np.nan
    channels[..., -1] = np.nan
    return x


def of_channel(array, axis, c):
    return np.moveaxis(array, axis, -1)[..., c]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@all_shapes
def test_each_channel_is_that_of_its_own_values(rng, shape, axis, dtype, training):
    x = draw(rng, shape, axis, dtype)
    dy, where, channels = rng.normal(size=shape).astype(dtype), ~np.isnan(x), shape[axis]
    gamma, beta = rng.normal(size=(2, channels))
    running = {"running_mean": rng.normal(size=channels), "running_var": np.full(channels, 4.0)}
    before = copy.deepcopy(running)

    y, cache = cybn.batch_norm(x, gamma, beta, axis=axis, where=where, training=training, **running)
    gradients = cybn.backward(dy, cache)

    assert not y[~where].any()
    assert not gradients.dx[~where].any()
    for c in range(channels):
        selected = of_channel(where, axis, c)
        assert cache.count[c] == selected.sum()
        old = [before[name][c : c + 1] for name in ("running_mean", "running_var")]
        if not selected.any():
            assert gradients.dgamma[c] == gradients.dbeta[c] == 0
            assert [running[name][c] for name in running] == [*old[0], *old[1]]
            continue
        own, own_dy = (of_channel(a, axis, c)[selected][:, None] for a in (x, dy))
        one = gamma[c : c + 1], beta[c : c + 1], *old
        expected = reference.forward(own, *one, training=training)
        tolerance = TOLERANCE[dtype]
        assert_close(of_channel(y, axis, c)[selected], expected.y[:, 0], tolerance, scale=5)
        assert_allclose(running["running_mean"][c], expected.running_mean[0], rtol=1e-13)
        assert_allclose(running["running_var"][c], expected.running_var[0], rtol=1e-12)
        own_gradients = reference.backward(
            own_dy, own, expected.mean, expected.var, one[0], training=training
        )
        dx = of_channel(gradients.dx, axis, c)[selected]
        assert_close(dx, own_gradients.dx[:, 0], tolerance, scale=5)
        assert_allclose(gradients.dgamma[c], own_gradients.dgamma[0], rtol=1e-9, atol=1e-9)
        assert_allclose(gradients.dbeta[c], own_gradients.dbeta[0], rtol=1e-9, atol=1e-9)


def test_is_that_of_the_axis_in_a_tuple(rng):
    x = draw(rng, (6, 4, 5), 1)
    one, cache = cybn.batch_norm(x, axis=1, where=~np.isnan(x))
    other, tuple_cache = cybn.batch_norm(x, axis=(1,), where=~np.isnan(x))
    assert_array_equal(one, other)
    assert_array_equal(cache.count, tuple_cache.count)


def test_moments(rng):
    x = draw(rng, (50, 6), 1)
    moments = cybn.moments(x, where=~np.isnan(x))
    assert_array_equal(moments.count, 50 - np.isnan(x).sum(axis=0))
    assert_allclose(moments.mean[:-1], np.nanmean(x[:, :-1], axis=0), rtol=1e-14)
    assert_allclose(moments.var()[:-1], np.nanvar(x[:, :-1], axis=0), rtol=1e-13)


def test_a_row_of_parameters_for_each_sample(rng):
    x, gamma = draw(rng, (4, 3, 50), 1), rng.normal(size=(4, 3))
    where = ~np.isnan(x)
    y, _ = cybn.batch_norm(x, gamma, where=where)
    xhat, _ = cybn.batch_norm(x, where=where)
    assert_allclose(y, xhat * gamma[..., None], rtol=1e-14, atol=1e-15)


def test_channel_with_one_value_in_training(rng):
    """It has no variance; the channel is named, and the way out."""
    x = rng.normal(size=(9, 3))
    where = np.ones(x.shape, bool)
    where[1:, 2] = False
    running = {"running_mean": np.zeros(3), "running_var": np.ones(3)}
    with refused(ValueError, r"where: .* got 1 in channel 2; .*training=False", x):
        cybn.batch_norm(x, where=where, **running)
    assert_array_equal(running["running_mean"], np.zeros(3))
    assert np.isfinite(cybn.batch_norm(x, where=where, training=False, **running)[0]).all()


@pytest.mark.parametrize(("shape", "axis"), [((4, 4), 1), ((3, 4, 4), 2), ((3, 4, 4), 1)])
def test_mask_that_lacks_an_axis_is_not_taken_for_one_per_feature(shape, axis):
    """(N,) of (N, N) would broadcast, to something else than meant."""
    where = np.ones(shape[:axis] + shape[axis + 1 :], bool)
    used = r"where\[..., None\]" if axis == len(shape) - 1 else r"np.expand_dims\(where, 1\)"
    with refused(ValueError, rf"where: .*; use {used}"):
        cybn.batch_norm(np.ones(shape), axis=axis, where=where)


class TestLayer:
    @pytest.fixture
    def batches(self, rng):
        """Every channel but the last has values, of each batch; that one of the third only."""
        batches = [draw(rng, (n, 4, 6), 1) for n in (30, 20, 10)]
        batches[2][:, 3] = rng.normal(size=(10, 6))
        return batches

    @staticmethod
    def assert_pooled(layer, batches):
        """The statistics of all values of each channel, or those of a new layer."""
        seen = np.concatenate(batches).transpose(1, 0, 2).reshape(4, -1)
        for c, values in enumerate(seen):
            values = values[~np.isnan(values)]
            mean, var = (values.mean(), values.var(ddof=1)) if len(values) else (0, 1)
            assert_allclose(layer.running_mean[c], mean, rtol=1e-13)
            assert_allclose(layer.running_var[c], var, rtol=1e-12)
        count = np.broadcast_to(layer.num_values_tracked, 4)
        assert_array_equal(count, np.count_nonzero(~np.isnan(seen), axis=1))
        assert layer.num_batches_tracked == len(batches)

    def test_pools_the_values_of_each_channel(self, batches):
        layer = cybn.BatchNorm(4, momentum=None)
        for i, batch in enumerate(batches):
            layer(batch, where=~np.isnan(batch))
            self.assert_pooled(layer, batches[: i + 1])

    @pytest.mark.parametrize("again", ["state dict", "pickle"])
    def test_a_saved_layer_goes_on(self, batches, again):
        layer = cybn.BatchNorm(4, momentum=None)
        for batch in batches:
            layer(batch, where=~np.isnan(batch))
            saved = layer
            layer = cybn.BatchNorm(4, momentum=None)
            if again == "pickle":
                layer = pickle.loads(pickle.dumps(saved))
            else:
                layer.load_state_dict(saved.state_dict())
        self.assert_pooled(layer, batches)

    def test_counts_are_one_int_while_they_are_equal(self, rng):
        layer, x = cybn.BatchNorm(4, momentum=None), rng.normal(size=(8, 4))
        where = rng.permuted(np.arange(8)[:, None] < np.full((1, 4), 5), axis=0)
        layer(x, where=where)
        assert type(layer.num_values_tracked) is int
        assert layer.num_values_tracked == 5
        assert layer.state_dict()["num_values_tracked"].shape == ()

    def test_averages_each_channel_that_has_values(self, batches):
        layer = cybn.BatchNorm(4, momentum=0.25, dtype=np.float64)
        mean, var = np.zeros(4), np.ones(4)
        for batch in batches:
            layer(batch, where=~np.isnan(batch))
            some = ~np.isnan(batch).all(axis=(0, 2))
            batch = batch[:, some]
            mean[some] += 0.25 * (np.nanmean(batch, axis=(0, 2)) - mean[some])
            var[some] += 0.25 * (np.nanvar(batch, axis=(0, 2), ddof=1) - var[some])
        assert_allclose(layer.running_mean, mean, rtol=1e-13)
        assert_allclose(layer.running_var, var, rtol=1e-13)
        assert_array_equal(
            layer.num_values_tracked,
            np.count_nonzero(~np.isnan(np.concatenate(batches)), axis=(0, 2)),
        )

    @pytest.mark.parametrize("momentum", [0.1, None])
    def test_calibrate(self, batches, momentum):
        """A channel of which nothing passes stays as it was."""
        layer = cybn.BatchNorm(4, momentum=momentum, dtype=np.float64)
        layer(np.arange(12.0).reshape(3, 4))
        before = copy.deepcopy(layer.state_dict())
        with cybn.calibrate(layer):
            for batch in batches[:2]:
                layer(batch, where=~np.isnan(batch))
        seen = np.concatenate(batches[:2])[:, :3]
        assert_allclose(layer.running_mean[:3], np.nanmean(seen, axis=(0, 2)), rtol=1e-13)
        assert_allclose(layer.running_var[:3], np.nanvar(seen, axis=(0, 2), ddof=1), rtol=1e-13)
        for name in ("running_mean", "running_var"):
            assert getattr(layer, name)[3] == before[name][3]
        assert_array_equal(layer.num_values_tracked[:3], (~np.isnan(seen)).sum(axis=(0, 2)))
        assert layer.num_values_tracked[3] == 3

    def test_statistics_that_were_loaded_without_a_count_are_replaced(self, rng):
        """Those of a channel, by the first values of it; others stay, whatever they are."""
        layer, x = cybn.BatchNorm(4, momentum=None), rng.normal(size=(8, 4))
        state = layer.state_dict() | {"running_mean": np.array([np.inf, 1e9, np.nan, 7.0])}
        layer.load_state_dict(state)
        where = np.ones((8, 4), bool)
        where[:, 3] = False
        layer(x, where=where)
        assert_allclose(layer.running_mean, [*x[:, :3].mean(axis=0), 7.0], rtol=1e-14)
        assert_allclose(layer.running_var, [*x[:, :3].var(axis=0, ddof=1), 1.0], rtol=1e-14)

    def test_nothing_selected_changes_nothing(self):
        layer = cybn.BatchNorm(4, momentum=None)
        before = copy.deepcopy(layer.state_dict())
        layer(np.ones((3, 4)), where=np.zeros((3, 4), bool))
        for key, value in layer.state_dict().items():
            assert_array_equal(value, before[key])

    @pytest.mark.parametrize(
        ("counts", "error"),
        [([1, 2], ValueError), ([1, 2, 3, -1], ValueError), ([1.0, 2.0, 3.0, 4.0], TypeError)],
    )
    def test_state_with_other_counts(self, counts, error):
        layer = cybn.BatchNorm(4, momentum=None)
        state = layer.state_dict() | {"num_values_tracked": np.array(counts)}
        with refused(error, "num_values_tracked", layer.running_mean):
            layer.load_state_dict(state)
