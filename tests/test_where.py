"""where=: the selected values are normalized as if there were no others."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
from cases import DTYPES, Case, Results, make_case, run_reference, tracked
from checks import assert_close, assert_results_nearest, refused
from norms import draw_mask
from numpy.testing import assert_allclose, assert_array_equal

import cybn

# (shape, axis, shape of the mask)
MASKS = {
    "N, C": ((257, 65), 1, (257, 1)),
    "NCHW": ((3, 17, 9, 11), 1, (3, 1, 9, 11)),
    "NHWC": ((3, 9, 11, 17), -1, (3, 9, 11, 1)),
    "RGB NHWC": ((2, 33, 31, 3), -1, (2, 33, 31, 1)),
    "samples": ((13, 17, 9, 11), 1, (13, 1, 1, 1)),
    "places": ((3, 17, 9, 11), 1, (9, 11)),
    "time": ((6, 40, 33), 2, (6, 40, 1)),
    "channels first": ((17, 3, 9), 0, (1, 3, 9)),
    "one row": ((1, 2, 8193), 1, (8193,)),
}
all_masks = pytest.mark.parametrize("name", MASKS)
both_modes = pytest.mark.parametrize("training", [True, False])


@dataclass(frozen=True)
class Scattered:
    """The rows of a case of shape (rows, channels), put where a mask selects."""

    rows: Case
    where: np.ndarray
    x: np.ndarray
    dy: np.ndarray
    axis: int

    @property
    def selected(self):
        """The mask without the channel axis, in full length."""
        return np.moveaxis(np.broadcast_to(self.where, self.x.shape), self.axis, -1)[..., 0]

    def gather(self, array):
        """The selected values of an array of x's shape, as the case has them."""
        return np.moveaxis(array, self.axis, -1)[self.selected]

    def run(self):
        """What `cases.run_cybn` gives for the rows, from x with the mask: y and dx are whole."""
        running = self.rows.running_mean.copy(), self.rows.running_var.copy()
        options = self.rows.options | {"axis": self.axis, "where": self.where}
        y, cache = cybn.forward(
            self.x, self.rows.gamma, self.rows.beta, **tracked(running), **options
        )
        return Results(y, *cybn.backward(self.dy, cache), *running)


def scattered(rng, name, dtype=np.float32, *, fill=np.nan, **options):
    """Rows of normally distributed values, and `fill` in all other places."""
    shape, axis, mask_shape = MASKS[name]
    where = draw_mask(rng, mask_shape)
    x, dy = np.full((2, *shape), fill, dtype)
    empty = Scattered(None, where, x, dy, axis)
    rows = make_case(rng, (int(empty.selected.sum()), shape[axis]), 1, dtype, **options)
    for array, values in ((x, rows.x), (dy, rows.dy)):
        np.moveaxis(array, axis, -1)[empty.selected] = values
    return replace(empty, rows=rows)


def test_by_hand():
    """Of 1, NaN and 3: mean 2, biased variance 1, unbiased variance 2, std 2 with eps."""
    x, where = np.array([[1.0], [np.nan], [3.0]]), [[True], [False], [True]]
    running_mean, running_var = np.array([10.0]), np.array([20.0])

    y, cache = cybn.forward(
        x,
        np.array([4.0]),
        np.array([7.0]),
        running_mean=running_mean,
        running_var=running_var,
        momentum=0.25,
        eps=3.0,
        where=where,
    )
    dx, dgamma, dbeta = cybn.backward(np.array([[1.0], [np.nan], [2.0]]), cache)

    assert_array_equal(y, [[-4 / 2 + 7], [0], [4 / 2 + 7]])
    assert_array_equal(running_mean, [0.75 * 10 + 0.25 * 2])
    assert_array_equal(running_var, [0.75 * 20 + 0.25 * 2])
    # dx = gamma / std * (dy - mean(dy) - x_hat * mean(dy * x_hat))
    assert_array_equal(dx, [[2 * (-0.5 + 0.5 / 4)], [0], [2 * (0.5 - 0.5 / 4)]])
    assert_array_equal(dgamma, [0.5])
    assert_array_equal(dbeta, [3.0])


@pytest.mark.parametrize("fill", [np.nan, np.inf, 1e30, 0.0])
@pytest.mark.parametrize("mean", [0.0, 1e6])
@both_modes
@pytest.mark.parametrize("dtype", DTYPES)
@all_masks
def test_is_batch_norm_of_the_selected_values(rng, name, dtype, training, mean, fill):
    masked = scattered(rng, name, dtype, fill=fill, training=training, mean=mean)
    actual = masked.run()

    gathered = actual._replace(y=masked.gather(actual.y), dx=masked.gather(actual.dx))
    assert_results_nearest(gathered, run_reference(masked.rows), masked.rows)
    for whole in (actual.y, actual.dx):
        assert not np.moveaxis(whole, masked.axis, -1)[~masked.selected].any()


@both_modes
@pytest.mark.parametrize("where", [True, np.ones((3, 1, 9, 11), bool), np.ones(1, bool), None])
def test_everything_selected(rng, where, training):
    case = make_case(rng, (3, 17, 9, 11), 1, np.float64, training=training)
    running = case.running_mean.copy(), case.running_var.copy()
    y, cache = cybn.forward(
        case.x, case.gamma, case.beta, **tracked(running), **case.options, where=where
    )
    actual = Results(y, *cybn.backward(case.dy, cache), *running)
    assert_results_nearest(actual, run_reference(case), case)


@both_modes
@pytest.mark.parametrize("where", [False, np.zeros((3, 1, 9, 11), bool)])
def test_nothing_selected_is_an_empty_batch(rng, where, training):
    case = make_case(rng, (3, 17, 9, 11), 1, training=training)
    running = case.running_mean.copy(), case.running_var.copy()
    y, cache = cybn.forward(
        case.x, case.gamma, case.beta, **tracked(running), **case.options, where=where
    )
    dx, dgamma, dbeta = cybn.backward(case.dy, cache)
    for array in (y, dx, dgamma, dbeta):
        assert not array.any()
    assert_array_equal(running, (case.running_mean, case.running_var))


def test_one_value_a_channel_in_training():
    x, running = np.ones((4, 3)), (np.zeros(3), np.ones(3))
    where = np.array([[False], [True], [False], [False]])
    with refused(ValueError, r"\bwhere\b|\bx\b", x, *running):
        cybn.forward(x, None, None, **tracked(running), where=where)


def test_one_value_a_channel_in_inference():
    y, _ = cybn.forward(
        np.full((4, 3), 7.0),
        None,
        None,
        running_mean=np.ones(3),
        running_var=np.full(3, 3.0),
        training=False,
        eps=1.0,
        where=[[False], [True], [False], [False]],
    )
    assert_array_equal(y, [[0] * 3, [3] * 3, [0] * 3, [0] * 3])


@pytest.mark.parametrize("shape", [(4, 1, 5), (1, 1, 5), (5,), (1, 5), (4, 1, 1), (1, 1, 1)])
def test_mask_is_broadcast(rng, shape):
    where = rng.random(shape) < 0.7
    where.flat[0] = True
    case = make_case(rng, (4, 3, 5), 1)
    full = np.broadcast_to(where, (4, 3, 5))[:, :1].copy()
    y, cache = cybn.forward(case.x, where=where)
    full_y, full_cache = cybn.forward(case.x, where=full)
    assert_array_equal(y, full_y)
    assert_array_equal(cybn.backward(case.dy, cache).dx, cybn.backward(case.dy, full_cache).dx)


@pytest.mark.parametrize("name", ["NCHW", "NHWC", "samples"])
def test_constant_channels_give_exactly_beta(rng, name):
    masked = scattered(rng, name, fill=5.0)
    values = np.moveaxis(masked.x, masked.axis, -1)
    values[masked.selected] = 100.1
    y = masked.run().y
    beta = np.broadcast_to(masked.rows.beta, masked.rows.x.shape)
    assert_array_equal(masked.gather(y), beta)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["NCHW", "NHWC", "N, C"])
def test_selected_nan_stays_in_its_channel(rng, name, value):
    masked = scattered(rng, name, fill=0.0)
    clean = masked.gather(masked.run().y)
    channels_last = np.moveaxis(masked.x, masked.axis, -1)
    channels_last[tuple(np.argwhere(masked.selected)[5])][2] = value
    y = masked.run().y
    clean[:, 2] = np.nan
    assert_array_equal(masked.gather(y), clean)
    assert not np.moveaxis(y, masked.axis, -1)[~masked.selected].any()


def test_inference_into_x(rng):
    masked = scattered(rng, "NCHW", training=False)
    expected = masked.run().y
    running = masked.rows.running_mean, masked.rows.running_var
    options = tracked(running) | {"training": False, "where": masked.where, "out": masked.x}
    y, cache = cybn.forward(masked.x, masked.rows.gamma, masked.rows.beta, **options)
    assert y is masked.x
    assert_array_equal(y, expected)
    with refused(ValueError, r"\bcache\b"):
        cybn.backward(masked.dy, cache)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.uint8, object, "U1"])
def test_mask_that_is_not_boolean(dtype):
    x, where = np.ones((4, 3)), np.ones((4, 1), dtype)
    with refused(TypeError, r"\bwhere\b", x):
        cybn.forward(x, where=where)


def test_mask_with_a_mask():
    with refused(TypeError, r"\bwhere\b"):
        cybn.forward(np.ones((4, 3)), where=np.ma.masked_array([[True]] * 4, mask=False))


@pytest.mark.parametrize("shape", [(3,), (5, 1), (1, 4, 1), (2, 4, 1), (0, 1), (4, 0)])
def test_mask_of_another_shape(shape):
    x, where = np.ones((4, 3)), np.ones(shape, bool)
    with refused(ValueError, r"\bwhere\b", x, where):
        cybn.forward(x, where=where)


class TestSequences:
    """Several lengths in one batch, with statistics for each step and feature, or over time."""

    LENGTHS = np.array([5, 3, 3, 5, 2])

    @pytest.fixture
    def where(self):
        return (np.arange(6) < self.LENGTHS[:, None])[..., None]

    @pytest.fixture
    def x(self, rng, where):
        x = rng.normal(3.0, 2.0, (5, 6, 4))
        x[~np.broadcast_to(where, x.shape)] = np.nan
        return x

    def test_statistics_of_each_step_and_feature(self, rng, x, where):
        gamma, beta = rng.normal(size=(2, 6, 4))
        running = np.zeros((6, 4)), np.ones((6, 4))
        dy = rng.normal(size=x.shape)

        y, cache = cybn.forward(x, gamma, beta, **tracked(running), axis=(1, 2), where=where)
        dx, dgamma, dbeta = cybn.backward(dy, cache)

        for step in range(5):
            rows = step < self.LENGTHS
            expected_running = np.zeros(4), np.ones(4)
            expected_y, step_cache = cybn.forward(
                x[rows, step], gamma[step], beta[step], **tracked(expected_running)
            )
            expected = cybn.backward(dy[rows, step], step_cache)
            assert_close(y[rows, step], expected_y, 1e-14)
            assert_close(dx[rows, step], expected.dx, 1e-14, scale=np.abs(dx).max())
            assert_close(dgamma[step], expected.dgamma, 1e-14)
            assert_close(dbeta[step], expected.dbeta, 1e-14)
            assert_close(running[0][step], expected_running[0], 1e-14)
            assert_close(running[1][step], expected_running[1], 1e-14)
        unselected = ~np.broadcast_to(where, x.shape)
        assert not y[unselected].any()
        assert not dx[unselected].any()

    def test_step_that_no_sequence_has(self, rng, x, where):
        """An empty batch for its statistics, which stay as they were."""
        running = np.full((6, 4), 5.0), np.full((6, 4), 6.0)
        y, cache = cybn.forward(
            x, np.ones((6, 4)), np.ones((6, 4)), **tracked(running), axis=(1, 2), where=where
        )
        _, dgamma, dbeta = cybn.backward(np.ones_like(x), cache)
        assert not y[:, 5].any()
        assert_array_equal(running[0][5], np.full(4, 5.0))
        assert_array_equal(running[1][5], np.full(4, 6.0))
        assert not dgamma[5].any()
        assert not dbeta[5].any()
        assert (running[0][:5] != 5).all()

    def test_step_that_one_sequence_has(self, x, where):
        where[:, 4] = [[True]] + [[False]] * 4
        with refused(ValueError, r"\bwhere\b|\bx\b", x):
            cybn.forward(x, axis=(1, 2), where=where)

    def test_statistics_over_time(self, x, where):
        y, _ = cybn.forward(x, axis=2, where=where)
        expected, _ = cybn.forward(x[where[..., 0]])
        assert_close(y[where[..., 0]], expected, 1e-14)


class TestLayer:
    @pytest.mark.parametrize("momentum", [0.1, None])
    def test_is_the_layer_of_the_selected_values(self, rng, momentum):
        masked = scattered(rng, "NCHW", np.float64)
        layer = cybn.BatchNorm(17, momentum=momentum, dtype=np.float64)
        twin = copy.deepcopy(layer)
        for _ in range(2):
            y = layer(masked.x, where=masked.where)
            dx = layer.backward(masked.dy)
            assert_close(masked.gather(y), twin(masked.rows.x), 1e-13)
            assert_close(masked.gather(dx), twin.backward(masked.rows.dy), 1e-13)
        for key, value in twin.state_dict().items():
            assert_allclose(layer.state_dict()[key], value, rtol=1e-13, err_msg=key)
        assert_close(layer.dgamma, twin.dgamma, 1e-13)

    def test_inference(self, rng):
        masked = scattered(rng, "NCHW", np.float64)
        layer = cybn.BatchNorm(17).eval()
        y = layer(masked.x, where=masked.where)
        assert_close(masked.gather(y), layer(masked.rows.x), 1e-14)

    def test_nothing_selected_does_not_count(self, rng):
        layer = cybn.BatchNorm(3)
        before = layer.state_dict()
        layer(rng.normal(size=(8, 3)), where=False)
        for key, value in layer.state_dict().items():
            assert_array_equal(value, before[key])

    def test_mask_is_checked(self, rng):
        layer = cybn.BatchNorm(3)
        before = layer.state_dict()
        with pytest.raises(ValueError, match=r"\bwhere\b"):
            layer(rng.normal(size=(8, 3)), where=np.ones((7, 1), bool))
        for key, value in layer.state_dict().items():
            assert_array_equal(value, before[key])


class TestMaskIsCopied:
    def test_so_it_may_change_before_backward(self, rng):
        for shape, mask_shape, axis in (
            *(((6, 1, 4), (6, 1, 4), 1), ((6, 3, 4), (6, 1, 4), 1)),
            ((6, 3, 4), (6, 3, 4), (1, 2)),
        ):
            x, where = rng.normal(size=shape), rng.random(mask_shape) < 0.7
            where[:2] = True
            dy = rng.normal(size=shape)
            _, cache = cybn.forward(x, axis=axis, where=where)
            expected = cybn.backward(dy, cache).dx
            where[...] = ~where
            assert_array_equal(cybn.backward(dy, cache).dx, expected)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_but_nothing_is_written_over_it(self, rng, channels):
        x = rng.normal(size=(6, channels, 4))
        memory = np.zeros(2 * x.nbytes, np.uint8)
        where = memory[:24].view(bool).reshape(6, 1, 4)
        where[...] = True
        out = memory[: x.nbytes].view(x.dtype).reshape(x.shape)
        with refused(ValueError, r"\bout\b.*\bwhere\b", memory):
            cybn.forward(x, where=where, out=out)
        running = memory[: 16 * channels].view(float).reshape(2, channels)
        with refused(ValueError, r"\brunning_mean\b.*\bwhere\b", memory):
            cybn.forward(x, None, None, **tracked(running), where=where)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("byte", [2, 128, 255])
def test_any_byte_that_is_not_zero_is_true(rng, byte, channels):
    """As in NumPy: of bytes that are viewed as bool."""
    x = rng.normal(1e8, 1.0, (50, channels, 4))
    bytes_ = rng.integers(0, 2, (50, 1, 4), np.uint8) * np.uint8(byte)
    where = bytes_ != 0
    running, others = np.ones((2, 2, channels))

    y, cache = cybn.forward(x, None, None, **tracked(running), where=bytes_.view(bool))

    expected, expected_cache = cybn.forward(x, None, None, **tracked(others), where=where)
    assert_array_equal(y, expected)
    assert_array_equal(cache.count, expected_cache.count)
    assert_array_equal(cache.var, expected_cache.var)
    assert_array_equal(running, others)
    assert_array_equal(cybn.backward(x, cache).dx, cybn.backward(x, expected_cache).dx)
    assert_array_equal(cybn.moments(x, where=bytes_.view(bool)).m2, cybn.moments(x, where=where).m2)
