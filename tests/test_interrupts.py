"""An interrupt at any line: running statistics and their counters are of one batch, old or new."""

import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
from cases import tracked, trained_layer
from numpy.testing import assert_array_equal

import cybn

PACKAGE = str(Path(cybn.__file__).parent)


class Interrupt(BaseException):
    """As a signal handler raises it."""


def interrupted(call, at, event="line"):
    """Interrupt a call before that many lines, or opcodes, of cybn; False: it has not so many."""
    lines = 0

    def trace(frame, seen, _):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return trace
        frame.f_trace_opcodes = event == "opcode"
        if seen == event:
            lines += 1
            if lines == at:
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt as interrupt:
        sys.settrace(before)
        traceback.clear_frames(interrupt.__traceback__)
        return True
    finally:
        sys.settrace(before)
    return False


def state_of(layer):
    """All that has to fit together, by value."""
    state = {key: value.tobytes() for key, value in layer.state_dict().items()}
    modes = layer.training, layer.momentum, getattr(layer, "num_values_tracked", None)
    return state, modes, id(layer.running_mean), id(layer.running_var)


def states_of_interrupts(make, call):
    """Interrupt a call at one line after another; yield the states before, after and found.

    And whether the layer still has its own running arrays.
    """
    at = 1
    while True:
        layer, whole = make(), make()
        before = state_of(layer)
        call(whole)
        if not interrupted(lambda layer=layer: call(layer), at):
            break
        after = state_of(whole)
        yield before[:2], after[:2], state_of(layer)[:2], before[2:] == state_of(layer)[2:]
        at += 1
    assert at > 10


def strided(layer):
    """Running arrays that the kernels cannot take as they are."""
    layer.running_mean, layer.running_var = (
        np.repeat(array, 2)[::2] for array in (layer.running_mean, layer.running_var)
    )
    return layer


def single(layer):
    layer.running_mean, layer.running_var = (
        array.astype(np.float32) for array in (layer.running_mean, layer.running_var)
    )
    return layer


X = np.random.default_rng(7).normal(5.0, 3.0, (6, 3, 4))
WHERE = np.arange(6)[:, None, None] < 4


def batch_norm(change=lambda layer: layer, **options):
    return lambda: change(trained_layer(np.random.default_rng(1), **options))


def instance_norm():
    layer = cybn.InstanceNorm(3, track_running_stats=True)
    layer(X + 1)
    return layer


def other_state(layer):
    layer.load_state_dict(
        {key: np.array(value) + 1 for key, value in batch_norm()().state_dict().items()}
    )


CALLS = {
    "momentum": (batch_norm(), lambda layer: layer(X)),
    "momentum, masked": (batch_norm(), lambda layer: layer(X, where=WHERE)),
    "momentum, strided": (batch_norm(strided), lambda layer: layer(X)),
    "pooled": (batch_norm(momentum=None), lambda layer: layer(X)),
    "pooled, masked": (batch_norm(momentum=None), lambda layer: layer(X, where=WHERE)),
    "pooled, float32": (batch_norm(single, momentum=None), lambda layer: layer(X)),
    "instance norm": (instance_norm, lambda layer: layer(X)),
    "load_state_dict": (batch_norm(), other_state),
}


@pytest.mark.parametrize(("make", "call"), CALLS.values(), ids=CALLS)
def test_layer(make, call):
    seen = []
    for before, after, state, same_arrays in states_of_interrupts(make, call):
        assert state in (before, after)
        assert same_arrays
        seen.append(state == after)
    assert seen == sorted(seen), "once it is done it stays done"


@pytest.mark.parametrize("momentum", [0.1, None])
def test_reset(momentum):
    make = batch_norm(momentum=momentum)
    for before, after, state, _ in states_of_interrupts(make, cybn.BatchNorm.reset_running_stats):
        assert state in (before, after)


@pytest.mark.parametrize("mode", ["train", "eval", "freeze"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_calibrate(momentum, mode):
    """Mode and momentum come back; the statistics are those of none, one or two batches."""
    batches = X, X[:3] * 2 - 1

    def make():
        layer = batch_norm(momentum=momentum)()
        getattr(layer, mode)()
        return layer

    def calibrated(layer, count):
        with cybn.calibrate(layer):
            for batch in batches[:count]:
                layer(batch)
        return layer

    allowed = [state_of(calibrated(make(), count))[:2] for count in range(3)]
    for _, _, state, same in states_of_interrupts(make, lambda layer: calibrated(layer, 2)):
        assert state in allowed
        assert same


@pytest.mark.parametrize("dtype", [">f8", "f8"])
def test_functional(dtype):
    """Running arrays that have to be copied, and those that have not: even between opcodes."""
    expected = np.ones((2, 3))
    cybn.forward(X, None, None, **tracked(expected))
    at, seen = 1, []
    while True:
        running = np.ones((2, 3), dtype)
        if not interrupted(
            lambda to=running: cybn.forward(X, None, None, **tracked(to)), at, "opcode"
        ):
            break
        assert (running == 1).all() or (running == expected).all()
        seen.append(bool((running == expected).all()))
        at += 1
    assert_array_equal(running, expected)
    assert {False, True} == set(seen)
    assert seen == sorted(seen)
