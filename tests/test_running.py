"""Running arrays of all that tracks: checked before anything is written, whoever writes them."""

import numpy as np
import pytest
from cases import tracked
from checks import refused
from hostile import Subclass

import cybn

X = np.random.default_rng(3).normal(4.0, 2.0, (6, 3, 5)).astype(np.float32)


def functional(running, **options):
    return cybn.forward(X, None, None, **tracked(running), **options)[0]


def of_layer(make):
    def call(running, **options):
        layer = make()
        layer.running_mean, layer.running_var = running
        return layer(X, **options)

    return call


def calibrated(running, **options):
    layer = cybn.BatchNorm(3)
    layer.running_mean, layer.running_var = running
    with cybn.calibrate(layer):
        return layer(X, **options)


TRACKING = {
    "function": functional,
    "momentum": of_layer(lambda: cybn.BatchNorm(3)),
    "pooled": of_layer(lambda: cybn.BatchNorm(3, momentum=None)),
    "calibrated": calibrated,
    "instance": of_layer(lambda: cybn.InstanceNorm(3, track_running_stats=True)),
}
all_trackers = pytest.mark.parametrize("call", TRACKING.values(), ids=TRACKING)


def good():
    return np.zeros(3, np.float32), np.ones(3, np.float32)


BAD = {
    "integers": (lambda array: array.astype(int), TypeError),
    "two bytes": (lambda array: array.astype(np.float16).view("V2"), TypeError),
    "complex numbers": (lambda array: array.astype(complex), TypeError),
    "a list": (np.ndarray.tolist, TypeError),
    "longer": (lambda array: np.ones(4, np.float32), ValueError),
    "to be broadcast": (lambda array: array[:1].copy(), ValueError),
    "two-dimensional": (lambda array: np.ones((1, 3), np.float32), ValueError),
    "a value repeated": (lambda array: np.broadcast_to(array[:1], 3), ValueError),
    "read-only": (lambda array: np.frombuffer(array.tobytes(), array.dtype), ValueError),
    "missing": (lambda array: None, ValueError),
}


@all_trackers
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(("spoil", "error"), BAD.values(), ids=BAD)
def test_bad_array(call, spoil, error, place):
    running, out = list(good()), np.zeros_like(X)
    running[place] = spoil(running[place])
    name = ("running_mean", "running_var")[place]
    arrays = [array for array in running if isinstance(array, np.ndarray)]
    with refused(error, rf"\b{name}\b", *arrays, X, out):
        call(running, out=out)


@all_trackers
def test_one_array_twice(call):
    array, out = np.ones(3, np.float32), np.zeros_like(X)
    with refused(ValueError, r"\brunning_(mean|var)\b", array, out):
        call((array, array), out=out)


@all_trackers
@pytest.mark.parametrize("place", [0, 1])
def test_overlap_with_out(call, place):
    running, out = list(good()), np.zeros_like(X)
    running[place] = out.reshape(-1)[7:10]
    with refused(ValueError, r"\bout\b|\brunning_", out, *running):
        call(running, out=out)


@all_trackers
@pytest.mark.parametrize(
    "make",
    [
        lambda array: np.repeat(array, 2)[::2],
        lambda array: array.astype(">f4"),
        lambda array: array.view(Subclass),
    ],
)
def test_arrays_that_are_not_plain(call, make):
    expected, running = good(), tuple(make(array) for array in good())
    np.testing.assert_array_equal(call(running), call(expected))
    actual = [np.asarray(array) for array in running]
    np.testing.assert_array_equal(actual, expected)
    assert (actual[1] != 1).all()


@all_trackers
def test_no_warning_whatever_numpy_is_told(call):
    """NaN and infinity go their way; half of a call is never left by an error of NumPy's."""
    running = np.array([np.inf, -np.inf, np.nan], np.float32), np.full(3, np.inf, np.float32)
    with np.errstate(all="raise"):
        call(running)


@pytest.mark.parametrize("value", [-1, 1.5, "many", None, 2**62])
def test_count_that_cannot_be_counted_on_from(value):
    layer = cybn.BatchNorm(3, momentum=None)
    layer.num_values_tracked, out = value, np.zeros_like(X)
    with refused((TypeError, ValueError), r"\bnum_values_tracked\b", layer.running_mean, out):
        layer(X, out=out)


def test_momentum_that_became_none():
    layer = cybn.InstanceNorm(3, track_running_stats=True)
    layer.momentum, out = None, np.zeros_like(X)
    with refused(TypeError, r"\bmomentum\b", layer.running_mean, out):
        layer(X, out=out)
