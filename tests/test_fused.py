"""activation= and residual=: y = act(norm(x) + residual), and all of its gradients."""

from dataclasses import replace

import numpy as np
import pytest
import reference_fused
from cases import DTYPES, MEMORY, SHAPES, cases, make_case, tracked
from checks import assert_nearest, refused
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference_fused import ACTIVATIONS
from ways import force_schedule

import cybn

EXACT = ["relu", "relu6"]  # no more than comparisons: they commute with rounding


def run(case, activation, residual, **options):
    running = [None if a is None else a.copy() for a in (case.running_mean, case.running_var)]
    options |= case.options | tracked(running)
    y, cache = cybn.batch_norm(
        case.x, case.gamma, case.beta, activation=activation, residual=residual, **options
    )
    gradients = cybn.backward(case.dy, cache)
    return y, *gradients, gradients.dresidual


def residual_of(rng, case):
    return rng.normal(size=case.x.shape).astype(case.x.dtype)


def after(activation, y):
    """The activation of a stored norm, as NumPy has it."""
    highest = np.nan if activation == "relu" else 6
    return np.where(y < 0, y.dtype.type(0), np.where(y > highest, y.dtype.type(6), y))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", EXACT)
@pytest.mark.parametrize("name", SHAPES)
def test_is_the_norm_and_then_the_activation(rng, name, activation, dtype, training):
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, dtype, training=training)
    case = replace(case, gamma=3 * case.gamma)
    plain, fused = run(case, None, None), run(case, activation, None)
    assert_array_equal(fused[0], after(activation, plain[0]))
    dy = case.dy * ((fused[0] > 0) & (fused[0] < (6 if activation == "relu6" else np.inf)))
    for one, other in zip(fused[1:4], run(replace(case, dy=dy), None, None)[1:4], strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("activation", EXACT)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_infinity_and_negative_zero(dtype, activation):
    x = np.array([[np.nan, np.inf, -np.inf, -0.0, 0.0, 6.0, 7.0, -1.0]] * 9, dtype)
    ones = np.ones(8)
    options = {"running_mean": 0 * ones, "running_var": ones - 1e-5, "training": False}
    y, cache = cybn.batch_norm(x, None, -0.0 * ones, activation=activation, **options)
    plain, _ = cybn.batch_norm(x, None, -0.0 * ones, **options)
    expected = after(activation, plain)
    assert_array_equal(y, expected)
    assert_array_equal(np.signbit(y), np.signbit(expected))
    passes = ~(y <= 0) & ~(y >= (6 if activation == "relu6" else np.nan))
    assert_array_equal(cybn.backward(np.ones_like(x), cache).dx != 0, passes)


@given(case=cases(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_nearest_to_the_exact_results(case, seed, data):
    activation = data.draw(st.sampled_from(ACTIVATIONS))
    residual = None
    if data.draw(st.booleans()):
        residual = residual_of(np.random.default_rng(seed), case)
    assert_results_are_nearest(case, activation, residual)


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_nearest_in_every_layout(rng, name, activation, dtype, training, with_residual):
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, dtype, training=training, mean=3.0)
    assert_results_are_nearest(case, activation, residual_of(rng, case) if with_residual else None)


def assert_results_are_nearest(case, activation, residual):
    actual = run(case, activation, residual)
    exact = reference_fused.run(case, activation, residual, actual[0])
    # The scale of what is activated: its error is that of the norm, and no activation's derivative
    # is above 1.5.
    scale = 1.5 * (case.y_scale + (0 if residual is None else np.abs(residual).max()))
    if case.beta is not None:
        scale = scale + np.abs(case.beta).max()
    terms = 1.5 * np.abs(case.dy).sum() + 1
    assert_nearest(actual[0], exact[0], scale, case.offset)
    # dy's factor has an error of the same kind, through the second derivative, which is below 1.
    assert_nearest(actual[1], exact[1], 1.5 * case.dx_scale * (1 + scale), case.offset)
    for one, other in zip(actual[2:4], exact[2:4], strict=True):
        if one is not None:
            assert_nearest(one, other, terms * (1 + scale.max()), case.offset.max())
    if residual is not None:
        assert_nearest(actual[4], exact[4], np.abs(case.dy).max() * (1 + scale), case.offset)
        assert actual[4].dtype == residual.dtype


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_in_every_way(rng, monkeypatch, dtype, activation):
    for shape, axis in ((37, 65), 1), ((3, 9, 11, 33), -1), ((2, 3, 33, 31), 1), ((70, 1040), 1):
        case = make_case(rng, shape, axis, dtype, mean=3.0)
        for residual in None, residual_of(rng, case):
            expected = run(case, activation, residual)
            for memory in MEMORY:
                for threads in 1, 3:
                    force_schedule(monkeypatch, lambda _, w=(*memory, 0, threads): w)
                    for one, other in zip(run(case, activation, residual), expected, strict=True):
                        assert_array_equal(one, other)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("offset", [0, 1, 4])
@pytest.mark.parametrize("shape", [(131, 7, 96), (50, 9, 100), (3000, 33)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_that_go_past_the_caches(rng, monkeypatch, dtype, shape, offset, training):
    """Not part by part, and where the residual's gradient lies otherwise in its lines than dx."""
    case = make_case(rng, shape, -1, dtype)
    options = tracked((case.running_mean, case.running_var)) | {"training": training, "axis": -1}
    residual = residual_of(rng, case)
    _, cache = cybn.batch_norm(case.x, activation="relu", residual=residual, **options)
    memory = [np.empty(case.x.size + 16, dtype) for _ in range(2)]
    starts = [-array.ctypes.data % 64 // array.itemsize for array in memory]
    dx, dresidual = (
        array[start : start + case.x.size].reshape(shape)
        for array, start in zip(memory, (starts[0], starts[1] + offset), strict=True)
    )
    expected = cybn.backward(case.dy, cache)
    for stream in (True, False):
        force_schedule(monkeypatch, lambda _, stream=stream: (True, stream, 1, 2))
        gradients = cybn.backward(case.dy, cache, out=dx, residual_out=dresidual)
        assert_array_equal(gradients.dx, expected.dx)
        assert_array_equal(gradients.dresidual, expected.dresidual)
        dx.fill(np.nan)
        dresidual.fill(np.nan)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("training", [True, False])
def test_a_mask(rng, activation, training):
    """As the selected values alone, and 0 elsewhere, also in the gradients."""
    case = make_case(rng, (40, 5), 1, np.float64, training=training)
    residual, selected = residual_of(rng, case), np.arange(40) % 3 > 0
    whole = run(case, activation, residual, where=selected[:, None])
    part = replace(case, x=case.x[selected], dy=case.dy[selected])
    expected = run(part, activation, residual[selected])
    for i, (one, other) in enumerate(zip(whole, expected, strict=True)):
        rows = i in (0, 1, 4)
        np.testing.assert_allclose(one[selected] if rows else one, other, rtol=1e-12, atol=1e-12)
        assert not rows or not one[~selected].any()


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_in_place(rng, activation):
    case = make_case(rng, (64, 32), 1, np.float32)
    residual = residual_of(rng, case)
    expected = run(case, activation, residual)[1:]
    _, cache = cybn.batch_norm(
        case.x, case.gamma, case.beta, activation=activation, residual=residual, eps=case.eps
    )
    dy = case.dy.copy()
    gradients = cybn.backward(dy, cache, residual_out=dy)
    assert gradients.dresidual is dy
    assert_array_equal(dy, expected[-1])
    assert_array_equal(gradients.dx, expected[0])
    dy = case.dy.copy()
    assert cybn.backward(dy, cache, out=dy).dx is dy
    assert_array_equal(dy, expected[0])


def test_the_cache_keeps_y_only_where_it_decides(rng):
    x, residual = rng.normal(size=(2, 8, 3))
    for activation, kept in (("relu", "y"), ("silu", "residual"), (None, "residual")):
        y, cache = cybn.batch_norm(x, activation=activation, residual=residual)
        assert cache._arrays.third is {"y": y, "residual": residual}[kept]
    for activation in ACTIVATIONS:
        assert cybn.batch_norm(x, activation=activation)[1]._arrays.third is None


def test_three_are_unpacked(rng):
    x, residual = rng.normal(size=(2, 8, 3))
    y, cache = cybn.batch_norm(x, activation="relu", residual=residual)
    dx, dgamma, dbeta = gradients = cybn.backward(y, cache)
    assert dgamma is dbeta is None
    assert gradients.dresidual.shape == dx.shape
    assert cybn.backward(y, cybn.batch_norm(x)[1]).dresidual is None


def test_one_array_for_two_gradients(rng):
    """dy may receive one of them, not both."""
    x, residual = rng.normal(size=(2, 8, 3))
    dy, cache = cybn.batch_norm(x, residual=residual)
    for out in dy, np.empty_like(x):
        with pytest.raises(ValueError, match="out: expected memory of its own"):
            cybn.backward(dy, cache, out=out, residual_out=out)


def test_silu_over_its_range():
    """Against longdouble: half an ulp of float32, and 4 of float64."""
    v = np.concatenate([np.linspace(-760, 760, 200_001), np.linspace(-3, 3, 100_001)])
    exact = reference_fused.value("silu", v.astype(np.longdouble))
    options = {"running_mean": np.zeros(1), "running_var": np.ones(1) - 1e-5, "training": False}
    y, _ = cybn.batch_norm(v[:, None], activation="silu", **options)
    assert np.all(np.abs(y[:, 0] - exact) <= 9e-16 * np.abs(exact) + 1e-300)


@pytest.mark.parametrize(
    ("activation", "error"),
    [
        ("gelu", ValueError),
        ("leaky_relu", ValueError),
        (("relu", 0.1), ValueError),
        (("leaky_relu", -0.1), ValueError),
        (("leaky_relu", np.inf), ValueError),
        (("leaky_relu", "0.1"), TypeError),
        (["relu"], TypeError),
        (1, TypeError),
        (np.maximum, TypeError),
    ],
)
def test_wrong_activations(activation, error):
    x = np.ones((4, 3))
    with refused(error, r"\bactivation\b", x):
        cybn.batch_norm(x, activation=activation)


def test_wrong_residuals(rng):
    x = rng.normal(size=(4, 3))
    out = np.zeros_like(x)
    for residual, error in [
        (np.ones(3), ValueError),
        (np.ones((4, 3), np.float32), TypeError),
        (np.ones((4, 3), complex), TypeError),
        (out, ValueError),
    ]:
        with refused(error, r"\bresidual\b", x, out):
            cybn.batch_norm(x, residual=residual, out=out)
    y, cache = cybn.batch_norm(x, residual=x, activation="relu")
    for residual_out, error in [
        (np.ones(3), ValueError),
        (np.ones((4, 3), np.float32), TypeError),
        (x, ValueError),
        (y, ValueError),
    ]:
        with refused(error, r"\bresidual_out\b", x, y):
            cybn.backward(np.ones_like(x), cache, residual_out=residual_out)
    with refused(ValueError, r"\bresidual_out\b", x):
        cybn.backward(x, cybn.batch_norm(x)[1], residual_out=np.ones_like(x))


def test_a_residual_is_read_as_any_input(rng):
    x, residual = rng.normal(size=(2, 8, 3))
    expected = cybn.batch_norm(x, residual=residual)[0]
    for other in residual.tolist(), np.asfortranarray(residual), residual.astype(">f8"):
        assert_array_equal(cybn.batch_norm(x, residual=other)[0], expected)


LAYERS = {
    "BatchNorm": (lambda **o: cybn.BatchNorm(6, **o), cybn.batch_norm),
    "GroupNorm": (lambda **o: cybn.GroupNorm(3, 6, **o), lambda x, **o: cybn.group_norm(x, 3, **o)),
    "InstanceNorm": (lambda **o: cybn.InstanceNorm(6, **o), cybn.instance_norm),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(rng, name, activation):
    make, function = LAYERS[name]
    x, residual, dy = rng.normal(size=(3, 4, 6, 5))
    layer = make(activation=activation)
    expected, cache = function(x, activation=activation, residual=residual)
    assert_array_equal(layer(x, residual=residual), expected)
    gradients, residual_out = cybn.backward(dy, cache), np.empty_like(dy)
    assert_array_equal(layer.backward(dy, residual_out=residual_out), gradients.dx)
    assert layer.dresidual is residual_out
    assert_array_equal(layer.dresidual, gradients.dresidual)
    assert_array_equal(layer(x, residual=residual, training=False) * 0, 0 * expected)
    layer.train()(x)
    layer.backward(dy)
    assert layer.dresidual is None
    assert ("activation=" in repr(layer)) == (activation is not None)
    with refused(ValueError, r"\bactivation\b"):
        make(activation="gelu")


def test_a_frozen_layer_trains_through_its_activation(rng):
    """Against the textbook: mean and variance are constants."""
    x, residual, dy = rng.normal(size=(3, 40, 6))
    layer = cybn.BatchNorm(6, activation="silu", dtype=np.float64).freeze()
    layer.running_mean[:], layer.running_var[:] = rng.normal(size=6), rng.uniform(1, 2, 6)
    layer(x, residual=residual)
    dx = layer.backward(dy)
    invstd = 1 / np.sqrt(layer.running_var + layer.eps)
    v = (x - layer.running_mean) * invstd + residual
    g = dy * reference_fused.derivative("silu", v, None)
    np.testing.assert_allclose(dx, g * invstd, rtol=1e-13)
    np.testing.assert_allclose(layer.dresidual, g, rtol=1e-13)
    np.testing.assert_allclose(layer.dbeta, g.sum(axis=0), rtol=1e-12)


def test_group_norm_with_channels_last(rng):
    x, residual = rng.normal(size=(2, 3, 7, 5, 8)).astype(np.float32)
    y, _ = cybn.group_norm(x, 4, axis=-1, activation="relu", residual=residual)
    wide = x.astype(np.longdouble).reshape(3, 35, 4, 2)
    mean, var = wide.mean(axis=(1, 3), keepdims=True), wide.var(axis=(1, 3), keepdims=True)
    v = ((wide - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) + residual
    assert_nearest(y, np.maximum(v, 0), 4.0)
