"""Groups: members with parts of a batch compute what one process computes of the whole.

The reference is the textbook's of the whole batch in longdouble; where it has no masks, activations
or conditional parameters, one plain call of the whole batch, which other tests judge.
"""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import reference
from checks import assert_close, assert_nearest
from groups import Communicator, run_well
from halves import HALVES, values_of

import cybn

SIZES = (7, 1, 0, 24)
CHANNELS = 6
# Beside the whole in one process: a few roundings more, of merging and of adding up.
CLOSE = {np.dtype(np.float64): 1e-13, np.dtype(np.float32): 2.0**-23}
LAYOUTS = {"NCHW": ((CHANNELS, 3, 5), 1), "NHWC": ((3, 5, CHANNELS), -1), "N, C": ((CHANNELS,), 1)}


def parts_of(sizes):
    return [slice(*ends) for ends in pairwise(np.cumsum([0, *sizes]))]


def draw(rng, shape, dtype):
    return rng.normal(3, 2, shape).astype(np.float32).astype(dtype)


class Batch:
    """A whole batch, and all that a call can be given with it; parameters per sample, if asked."""

    def __init__(self, rng, layout="NCHW", dtype=np.float32, sizes=SIZES, per_sample=False):
        inner, self.axis = LAYOUTS[layout]
        shape = sum(sizes), *inner
        self.parts = parts_of(sizes)
        self.x, self.dy, self.residual = (draw(rng, shape, dtype) for _ in range(3))
        parameters = (shape[0], CHANNELS) if per_sample else (CHANNELS,)
        self.per_sample = per_sample
        self.gamma, self.beta = rng.normal(size=parameters), rng.normal(size=parameters)
        self.where = rng.random((*shape[:-1], 1) if self.axis == -1 else shape) < 0.7
        self.where = self.where if self.axis == -1 else self.where[:, :1]

    def run(self, part, options, group=None):
        """Return the results of both directions, by name."""
        options = {name: self._cut(option, part) for name, option in options.items()}
        rows = part if self.per_sample else slice(None)
        running = {"running_mean": np.zeros(CHANNELS), "running_var": np.ones(CHANNELS)}
        y, cache = cybn.batch_norm(
            self.x[part],
            self.gamma[rows],
            self.beta[rows],
            axis=self.axis,
            group=group,
            **running,
            **options,
        )
        gradients = cybn.backward(self.dy[part], cache)
        results = {"y": y, "dx": gradients.dx, "dresidual": gradients.dresidual, **running}
        results |= {"dgamma": gradients.dgamma, "dbeta": gradients.dbeta, "count": cache.count}
        return results

    def _cut(self, option, part):
        return getattr(self, option)[part] if option in ("where", "residual") else option

    def run_group(self, options=None, kind=None):
        options = options or {}
        kind = [kind] if kind else []

        def member(rank, group):
            results = self.run(self.parts[rank], options, group)
            return results | {"exchanges": group.exchanges}

        return run_well(len(self.parts), member, *kind)


def whole_of(members, name):
    return np.concatenate([values_of(each[name]) for each in members])


def assert_as_one(batch, members, options):
    """Assert that members of a group have what one plain call gives."""
    one = batch.run(slice(None), options)
    tolerance = CLOSE.get(batch.x.dtype, 2.0**-7)
    for name in ("y", "dx", "dresidual") if "residual" in options else ("y", "dx"):
        assert_close(whole_of(members, name), values_of(one[name]), tolerance)
    for name in ("running_mean", "running_var"):
        assert len({each[name].tobytes() for each in members}) == 1
        assert_close(members[0][name], one[name], 1e-13)
    for name in ("dgamma", "dbeta"):
        join = np.concatenate if batch.per_sample else sum
        assert_close(join([each[name] for each in members]), one[name], 1e-12)
    assert all(np.array_equal(each["count"], one["count"]) for each in members)
    assert [each["exchanges"] for each in members] == [2] * len(members)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [(5, 3), (7, 1, 0), SIZES, (1, 1), (0, 4)])
def test_each_result_is_that_of_the_whole(rng, layout, dtype, sizes):
    batch = Batch(rng, layout, dtype, sizes)
    members = batch.run_group()
    exact = reference.forward(
        *(batch.x, batch.gamma, batch.beta, np.zeros(CHANNELS), np.ones(CHANNELS)),
        axis=batch.axis,
        dtype=np.longdouble,
    )
    gradients = reference.backward(
        *(batch.dy, batch.x, exact.mean, exact.var, batch.gamma),
        axis=batch.axis,
        dtype=np.longdouble,
    )
    for name, right in ("y", exact.y), ("dx", gradients.dx):
        results = np.concatenate([each[name] for each in members])
        assert results.dtype == dtype
        scale = np.abs(right).max()
        if dtype == np.float32:  # half an ulp and 1e-9
            assert_nearest(results, right, scale)
        else:
            assert_close(results, right, 1e-13)
    for name in ("running_mean", "running_var"):
        assert_close(members[0][name], getattr(exact, name), 1e-13)
    assert_as_one(batch, members, {})


OPTIONS = {
    "mask": {"where": "where"},
    "relu": {"activation": "relu"},
    "silu": {"activation": "silu"},
    "leaky_relu, residual": {"activation": ("leaky_relu", 0.1), "residual": "residual"},
    "relu6, residual": {"activation": "relu6", "residual": "residual"},
    "hardswish, residual, mask": {
        "activation": "hardswish",
        "residual": "residual",
        "where": "where",
    },
    "eps, momentum": {"eps": 0.5, "momentum": 0.7},
}


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option(rng, options, layout, per_sample):
    for dtype in np.float64, np.float32, *HALVES.values():
        batch = Batch(rng, layout, dtype, per_sample=per_sample)
        assert_as_one(batch, batch.run_group(options), options)


@pytest.mark.parametrize("dtype", HALVES.values(), ids=HALVES)
def test_16_bit_is_rounded_once(rng, dtype):
    """But for what float64 loses, which may move a few values across a tie."""
    batch = Batch(rng, dtype=dtype)
    members = batch.run_group()
    one = batch.run(slice(None), {})
    for name in ("y", "dx"):
        assert np.mean(whole_of(members, name) != values_of(one[name])) < 1e-3


def test_a_mask_may_select_nothing_of_a_member_or_of_a_channel(rng):
    batch = Batch(rng, sizes=(3, 4, 5))
    batch.where = np.ones(batch.x.shape, bool)
    batch.where[:3] = False
    batch.where[:, 2] = False
    options = {"where": "where"}
    members = batch.run_group(options)
    assert_as_one(batch, members, options)
    assert members[1]["running_mean"][2] == 0


def test_some_members_may_have_a_mask(rng):
    x = rng.normal(size=(8, 3))
    where = np.arange(8)[:, None] != 1
    one, _ = cybn.batch_norm(x, where=where)

    def member(rank, group):
        part = slice(4 * rank, 4 * rank + 4)
        mask = where[part] if rank == 0 else None
        return cybn.batch_norm(x[part], where=mask, group=group)[0]

    assert_close(np.concatenate(run_well(2, member)), one, 1e-13)


@pytest.mark.parametrize("per_sample", [False, True])
def test_all_may_be_empty(rng, per_sample):
    batch = Batch(rng, sizes=(0, 0), per_sample=per_sample)
    for each in batch.run_group():
        assert each["y"].shape == each["dx"].shape == batch.x.shape
        assert np.all(each["running_mean"] == 0)
        assert np.all(each["running_var"] == 1)
        assert np.all(each["dgamma"] == 0)


def test_channels_of_several_axes(rng):
    x, dy = rng.normal(size=(2, 9, 4, 3))
    one, cache = cybn.batch_norm(x, axis=(1, 2))
    dx = cybn.backward(dy, cache).dx

    def member(rank, group):
        part = parts_of((5, 4))[rank]
        y, cache = cybn.batch_norm(x[part], axis=(1, 2), group=group)
        assert cache.mean.shape == (4, 3)
        return y, cybn.backward(dy[part], cache).dx

    y_parts, dx_parts = zip(*run_well(2, member), strict=True)
    assert_close(np.concatenate(y_parts), one, 1e-13)
    assert_close(np.concatenate(dx_parts), dx, 1e-13)


def test_the_same_bits_from_run_to_run_and_for_any_number_of_threads(rng):
    batch = Batch(rng)
    runs = []
    for threads in (1, 1, 3):
        cybn.set_num_threads(threads)
        runs.append([each[name].tobytes() for each in batch.run_group() for name in ("y", "dx")])
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{}, OPTIONS["relu6, residual"]], ids=["plain", "fused"])
def test_large_parts_run_on_several_threads(rng, monkeypatch, layout, options):
    """And past the caches, as phases of their own."""
    monkeypatch.setitem(LAYOUTS, "NCHW", ((CHANNELS, 96, 64), 1))
    monkeypatch.setitem(LAYOUTS, "NHWC", ((96, 64, CHANNELS), -1))
    monkeypatch.setitem(LAYOUTS, "N, C", ((CHANNELS,), 1))
    sizes = (3, 60_000) if layout == "N, C" else (9, 0, 15)
    batch = Batch(rng, layout, np.float64, sizes)
    cybn.set_num_threads(2)
    members = batch.run_group(options)
    assert_as_one(batch, members, options)


def test_four_ways(rng):
    """1: alone. 2: many, each for itself. 3: a group of one. 4: a group of many. 1 = 3 = 4 != 2."""
    batch = Batch(rng, dtype=np.float64, sizes=(9, 3, 4))
    alone = batch.run(slice(None), {})
    many = [batch.run(part, {}) for part in batch.parts]
    batch.parts, parts = [slice(None)], batch.parts
    (of_one,) = batch.run_group()
    batch.parts = parts
    of_many = batch.run_group()
    for name in ("y", "dx"):
        assert of_one[name].tobytes() == alone[name].tobytes()
        assert_close(whole_of(of_many, name), alone[name], 1e-13)
        assert np.abs(whole_of(many, name) - alone[name]).max() > 0.01
    assert of_one["exchanges"] == 0


def test_a_communicator_of_mpi4py_is_taken_as_it_is(rng):
    batch = Batch(rng)
    members = batch.run_group(kind=Communicator)
    assert_as_one(batch, members, {})


@pytest.mark.parametrize("channels", [600, 700, 1030, 5000])
def test_many_channels_take_a_second_exchange_at_the_most(rng, channels):
    x, dy = rng.normal(size=(2, 7, channels))
    where = rng.random(x.shape) < 0.9
    where[:2] = True
    one, cache = cybn.batch_norm(x, where=where)
    dx = cybn.backward(dy, cache).dx

    def member(rank, group):
        part = parts_of((4, 3))[rank]
        y, cache = cybn.batch_norm(x[part], where=where[part], group=group)
        forward = group.exchanges
        gradients = cybn.backward(dy[part], cache)
        return y, gradients.dx, forward, group.exchanges - forward

    y_parts, dx_parts, forward, backward = zip(*run_well(2, member), strict=True)
    assert_close(np.concatenate(y_parts), one, 1e-13)
    assert_close(np.concatenate(dx_parts), dx, 1e-13)
    assert forward == (1 + (channels > 686),) * 2
    assert backward == (1 + (channels > 1029),) * 2


def test_results_in_place(rng):
    batch = Batch(rng, dtype=np.float64)
    options = {"activation": "relu", "residual": "residual"}
    one = batch.run(slice(None), options)

    def member(rank, group):
        part = batch.parts[rank]
        y = np.empty_like(batch.x[part])
        parameters = batch.gamma, batch.beta
        residual = batch.residual[part]
        _, cache = cybn.batch_norm(
            batch.x[part], *parameters, activation="relu", residual=residual, group=group, out=y
        )
        first, second = batch.dy[part].copy(), batch.dy[part].copy()
        results = cybn.backward(first, cache, out=first)
        assert results.dx is first
        dx = cybn.backward(second, cache, residual_out=second).dx
        return {"y": y, "dx": dx, "dx_in_place": first, "dresidual": second}

    members = run_well(4, member)
    for name in ("y", "dx", "dresidual"):
        assert_close(whole_of(members, name), one[name], 1e-13)
    assert whole_of(members, "dx_in_place").tobytes() == whole_of(members, "dx").tobytes()


def test_nothing_is_exchanged_in_inference_or_frozen(rng):
    x = rng.normal(size=(4, 3))

    def member(rank, group):
        layer = cybn.BatchNorm(3, group=group)
        if rank == 0:  # nobody waits for the other
            layer.eval()(x)
            layer.train().freeze()(x)
            layer.backward(x)
            layer(x, training=False)
            cybn.batch_norm(
                x, running_mean=np.zeros(3), running_var=np.ones(3), training=False, group=group
            )
            cybn.BatchNorm(3, track_running_stats=False, group=group).eval()(x)
        return group.exchanges

    assert run_well(2, member) == [0, 0]


# ---- Layers


@pytest.mark.parametrize("momentum", [0.1, None])
def test_layers(rng, momentum):
    """Over several batches; the running statistics and counts of all members are the same."""
    batches = [Batch(rng, dtype=np.float64, sizes=sizes) for sizes in (SIZES, (0, 3, 1, 5))]
    whole = cybn.BatchNorm(CHANNELS, momentum=momentum, dtype=np.float64)

    def member(rank, group):
        layer = cybn.BatchNorm(CHANNELS, momentum=momentum, dtype=np.float64, group=group)
        results = []
        for batch in batches:
            part = batch.parts[rank]
            results.append((layer(batch.x[part]), layer.backward(batch.dy[part])))
        return layer.state_dict() | {"values": layer.num_values_tracked}, results

    states, results = zip(*run_well(4, member), strict=True)
    for index, batch in enumerate(batches):
        y_parts, dx_parts = zip(*(each[index] for each in results), strict=True)
        assert_close(np.concatenate(y_parts), whole(batch.x), 1e-13)
        assert_close(np.concatenate(dx_parts), whole.backward(batch.dy), 1e-13)
    expected = whole.state_dict() | {"values": whole.num_values_tracked}
    for name, value in expected.items():
        assert len({np.asarray(state[name]).tobytes() for state in states}) == 1
        assert_close(np.asarray(states[0][name]), np.asarray(value), 1e-13)


def test_calibrate(rng):
    x = rng.normal(size=(12, 3))
    whole = cybn.BatchNorm(3).eval()
    with cybn.calibrate(whole):
        whole(x)

    def member(rank, group):
        layer = cybn.BatchNorm(3, group=group).eval()
        with cybn.calibrate(layer):
            layer(x[rank::2])
        return layer.running_mean, layer.running_var

    for mean, var in run_well(2, member):
        assert_close(mean, whole.running_mean, 2.0**-23)
        assert_close(var, whole.running_var, 2.0**-23)


def test_copies_and_pickles_have_no_group():
    def member(rank, group):
        layer = cybn.BatchNorm(3, group=group)
        assert "group" not in layer.state_dict()
        return layer, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)

    for layer, *others in run_well(2, member):
        assert layer.group is not None
        assert all(other.group is None for other in others)
