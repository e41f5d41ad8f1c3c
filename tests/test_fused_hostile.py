"""Whatever comes as residual or residual_out: the right result, or an error that names it."""

from itertools import product

import numpy as np
import pytest
from cases import DTYPES
from checks import refused
from halves import HALVES, nearest, values_of
from hostile import SPOIL
from numpy.testing import assert_array_equal
from reference_fused import ACTIVATIONS

import cybn

SHAPE = (4, 3, 5)
ALL_DTYPES = [np.dtype(dtype) for dtype in (*HALVES.values(), *DTYPES)]
ERRORS = {"T": TypeError, "V": ValueError}

# As in `hostile`, beside x of float32. A residual is not rounded to x's dtype.
OUTCOMES = """
                          residual residual_out
None                      -        -
complex numbers           T        T
objects                   T        T
text                      T        T
dates                     T        T
records                   T        T
bfloat16 from a file      T        T
longdouble                T        T
integers                  T        T
bool                      R        T
the other float           T        T
a list                    T        T
a memoryview              R        T
an array interface        R        T
a masked array            T        T
a number                  V        T
a word                    T        T
a dict                    T        T
a ragged list             V        T
no dimensions             V        V
one value less            V        V
one axis more             V        V
no values                 V        V
Fortran order             R        V
every third value         R        V
reversed                  R        V
huge strides              R        V
a value repeated          R        V
read-only                 R        V
byte-swapped              R        T
unaligned                 R        V
a subclass                R        R
a lying subclass          V        V
memory-mapped             R        R
memory-mapped, read-only  R        V
shared memory             R        R
NaN                       R        -
infinity                  R        -
subnormal                 R        -
the largest float         R        -
minus zero                R        -
"""


def table(column):
    rows = (line.rsplit(None, 2) for line in OUTCOMES.splitlines()[2:])
    return [(how, outcomes[column]) for how, *outcomes in rows if outcomes[column] != "-"]


def drawn(dtype=np.float32):
    """x, residual and dy."""
    rng = np.random.default_rng(5)
    arrays = rng.normal(size=(3, *SHAPE))
    return [nearest(a, dtype) if dtype in HALVES.values() else a.astype(dtype) for a in arrays]


def everything(x, residual, dy, activation, residual_out=None, **options):
    y, cache = cybn.batch_norm(x, np.ones(3), activation=activation, residual=residual, **options)
    gradients = cybn.backward(dy, cache, residual_out=residual_out)
    return y, *gradients[:2], gradients.dresidual


def assert_same(results, expected):
    for one, other in zip(results, expected, strict=True):
        assert_array_equal(np.asarray(one), np.asarray(other))


def test_every_way_to_spoil_has_a_row():
    assert [line.rsplit(None, 2)[0] for line in OUTCOMES.splitlines()[2:]] == list(SPOIL)


@pytest.mark.parametrize("activation", ["relu", "silu", None])
@pytest.mark.parametrize(("how", "outcome"), table(0))
def test_residual(how, outcome, activation):
    """A right result is that of a plain copy."""
    x, residual, dy = drawn()
    hostile = SPOIL[how](residual)
    arrays = [x, *([hostile] if isinstance(hostile, np.ndarray) else [])]
    if outcome == "R":
        before = np.array(hostile).tobytes()
        expected = everything(x, np.array(hostile, np.float32), dy, activation)
        assert_same(everything(x, hostile, dy, activation), expected)
        assert np.array(hostile).tobytes() == before
    else:
        with refused(ERRORS[outcome], r"\bresidual\b", *arrays):
            cybn.batch_norm(x, activation=activation, residual=hostile)


@pytest.mark.parametrize("activation", ["relu", "silu", None])
@pytest.mark.parametrize(("how", "outcome"), table(1))
def test_residual_out(how, outcome, activation):
    x, residual, dy = drawn()
    hostile = SPOIL[how](np.zeros(SHAPE, np.float32))
    if outcome == "R":
        expected = everything(x, residual, dy, activation)
        results = everything(x, residual, dy, activation, hostile)
        assert results[-1] is hostile
        assert_same(results, expected)
        return
    _, cache = cybn.batch_norm(x, activation=activation, residual=residual)
    arrays = [x, residual, *([hostile] if isinstance(hostile, np.ndarray) else [])]
    with refused(ERRORS[outcome], r"\bresidual_out\b", *arrays):
        cybn.backward(dy, cache, residual_out=hostile)


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("how", ["a subclass", "memory-mapped", "shared memory"])
def test_y_in_an_array_of_another_kind(how, activation):
    """The cache keeps it where y decides."""
    x, residual, dy = drawn()
    out = SPOIL[how](np.zeros(SHAPE, np.float32))
    expected = everything(x, residual, dy, activation)
    results = everything(x, residual, dy, activation, out=out)
    assert results[0] is out
    assert_same(results, expected)


@pytest.mark.parametrize("x_dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("dtype", [*ALL_DTYPES, np.dtype("i8"), np.dtype("c8")], ids=str)
def test_every_pair_of_dtypes(x_dtype, dtype):
    x, residual, dy = drawn(x_dtype)
    _, other, _ = drawn(dtype if dtype in ALL_DTYPES else np.float32)
    other = other if dtype in ALL_DTYPES else other.astype(dtype)
    beside = dtype == np.float32 and x_dtype.itemsize == 2
    if dtype == np.int64 and x_dtype == np.float64:  # integers are converted as those of x are
        assert cybn.batch_norm(x, residual=other)[1]._residual_dtype == x_dtype
        return
    if dtype == x_dtype or beside:
        y, cache = cybn.batch_norm(x, residual=other, activation="relu")
        assert y.dtype == x_dtype
        assert cybn.backward(dy, cache).dresidual.dtype == dtype
        receiver = np.empty(SHAPE, dtype)
        assert cybn.backward(dy, cache, residual_out=receiver).dresidual is receiver
        for wrong in set(ALL_DTYPES) - {dtype}:
            with refused(TypeError, rf"residual_out: expected {dtype}, got {wrong}", x, y):
                cybn.backward(dy, cache, residual_out=np.empty(SHAPE, wrong))
    else:
        with refused(TypeError, r"\bresidual: expected", x, other):
            cybn.batch_norm(x, residual=other, activation="relu")
    if dtype != x_dtype:
        out = np.zeros(SHAPE, dtype)
        with refused(TypeError, r"\bout: expected", x, residual, out):
            cybn.batch_norm(x, residual=residual, activation="relu", out=out)


# How a second array of SHAPE lies to one of SHAPE at place 60 of a buffer of 180 values.
PLACES = {
    "the same": lambda buffer: buffer[60:120],
    "one value on": lambda buffer: buffer[61:121],
    "the last value": lambda buffer: buffer[119:179],
    "the first value": lambda buffer: buffer[1:61],
    "the same, reversed": lambda buffer: buffer[119:59:-1],
}


def beside_in_memory(place, values):
    """An array of zeros, and one that overlaps with it and has these values."""
    buffer = np.zeros(180, values.dtype)
    read = PLACES[place](buffer).reshape(values.shape)
    read[...] = values
    return buffer[60:120].reshape(SHAPE), read


INFERENCE = {"running_mean": np.zeros(3), "running_var": np.ones(3), "training": False}


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_overlap_forward(place, dtype):
    """Only x itself may be written over, in inference, and not if it is the residual, too."""
    x, residual, _ = drawn(dtype)
    for options, activation in product(({}, INFERENCE), ("relu", "silu", None)):
        out, overlapping = beside_in_memory(place, residual)
        with refused(ValueError, r"\bresidual\b", x, out):
            cybn.batch_norm(x, residual=overlapping, activation=activation, out=out, **options)
        out, overlapping = beside_in_memory(place, x)
        if options and place == "the same":
            expected, _ = cybn.batch_norm(x, residual=residual, activation=activation, **options)
            y, cache = cybn.batch_norm(
                overlapping, residual=residual, activation=activation, out=out, **options
            )
            assert y is out
            assert_array_equal(values_of(y), values_of(expected))
            assert cache.x is None
            with refused(ValueError, r"\bcache\b.*out=x", out):
                cybn.backward(x, cache)
        else:
            with refused(ValueError, r"\bout\b", residual, out):
                cybn.batch_norm(
                    overlapping, residual=residual, activation=activation, out=out, **options
                )
        x_too = x.copy()
        for same in x_too, x_too[:], x_too[...].view():
            with refused(ValueError, r"\bout\b", x_too):
                cybn.batch_norm(x_too, residual=same, activation=activation, out=x_too, **options)


@pytest.mark.parametrize("name", ["out", "residual_out"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("place", PLACES)
def test_overlap_backward(place, activation, name):
    """dy may be written over, once; nothing else that is read."""
    x, residual, dy = drawn()
    expected = everything(x, residual, dy, activation)
    for read in "x", "residual", "y":
        arrays = {"x": x, "residual": residual, "y": np.zeros(SHAPE, np.float32)}
        if read == "y" and place == "the same, reversed":
            continue  # y is C-contiguous
        written, arrays[read] = beside_in_memory(place, arrays[read])
        _, cache = cybn.batch_norm(
            arrays["x"], np.ones(3), residual=arrays["residual"], activation=activation,
            out=arrays["y"],
        )  # fmt: skip
        copied = place == "the same, reversed"  # then the cache has a copy of its own
        if copied or read == ("y" if activation == "silu" else "residual"):
            gradients = cybn.backward(dy, cache, **{name: written})
            assert_same([*gradients[:2], gradients.dresidual], expected[1:])
        else:
            with refused(ValueError, rf"\b{name}\b.*cache", written, x):
                cybn.backward(dy, cache, **{name: written})
            same = arrays[read]  # as dy itself
            with refused(ValueError, rf"\b{name}\b.*cache", written, x):
                cybn.backward(same, cache, **{name: same})
    _, cache = cybn.batch_norm(x, np.ones(3), residual=residual, activation=activation)
    written, overlapping = beside_in_memory(place, dy)
    if place == "the same":
        gradients = cybn.backward(overlapping, cache, **{name: written})
        assert_same([*gradients[:2], gradients.dresidual], expected[1:])
    else:
        with refused(ValueError, rf"\b{name}\b.*\bdy\b", written):
            cybn.backward(overlapping, cache, **{name: written})
    one, other = beside_in_memory(place, np.zeros_like(x))
    if place != "the same, reversed":
        with refused(ValueError, "out", one, other):
            cybn.backward(dy, cache, out=one, residual_out=other)
    with refused(ValueError, "out", dy):
        cybn.backward(dy, cache, out=dy, residual_out=dy)


def test_dy_of_another_dtype_is_written_over_where_that_is_the_residuals():
    x, _, dy = drawn(np.float16)
    residual = drawn()[1]
    expected = everything(x, residual, dy, "relu")
    wide = dy.astype(np.float32)
    results = everything(x, residual, wide, "relu", wide)
    assert results[-1] is wide
    assert_same(results, expected)


def test_what_is_no_array_is_not_written_over():
    x, residual, dy = drawn()
    options = {"residual": residual, "activation": "relu"}
    with refused(ValueError, r"\bout\b", x):
        cybn.batch_norm(memoryview(x), out=x, **options, **INFERENCE)
    _, cache = cybn.batch_norm(x, **options)
    for name in "out", "residual_out":
        with refused(ValueError, rf"\b{name}\b", dy):
            cybn.backward(memoryview(dy), cache, **{name: dy})


def test_plain_dx_over_x_is_refused():
    x, _, _ = drawn()
    _, cache = cybn.batch_norm(x)
    with refused(ValueError, r"\bout\b.*cache\.x", x):
        cybn.backward(x, cache, out=x)


@pytest.mark.parametrize("change", [lambda a: (12, 5), lambda a: (60,)])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_cache_whose_arrays_were_reshaped(activation, change):
    x, residual, dy = drawn()
    y, cache = cybn.batch_norm(x, residual=residual, activation=activation)
    kept = y if activation == "relu" else residual
    cache._arrays.third = kept.reshape(change(kept))
    for residual_out in None, np.empty_like(x):
        with refused(ValueError, r"\bcache's residual or y\b", x, kept):
            cybn.backward(dy, cache, residual_out=residual_out)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 5), (4, 3, 0), (4, 0), (0, 0), (4, 0, 5)])
def test_no_values(shape, activation, dtype):
    x = np.zeros(shape, dtype)
    gamma = np.ones(shape[1], dtype)
    for given in x, np.zeros(shape, np.float32 if dtype.itemsize == 2 else dtype):
        y, cache = cybn.batch_norm(x, gamma, gamma, residual=given, activation=activation)
        gradients = cybn.backward(x, cache)
        assert y.shape == gradients.dx.shape == gradients.dresidual.shape == shape
        assert gradients.dresidual.dtype == given.dtype
        assert_array_equal(gradients.dgamma, np.zeros(shape[1]))
        receiver = np.empty_like(given)
        assert cybn.backward(x, cache, residual_out=receiver).dresidual is receiver
    with refused(ValueError, r"\bresidual\b"):
        cybn.batch_norm(x, residual=np.zeros((1, 1), dtype), activation=activation)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_a_mask_that_selects_nothing(activation, dtype):
    x, residual, dy = (np.full_like(array, np.nan) for array in drawn(dtype))
    running = {"running_mean": np.zeros(3), "running_var": np.ones(3)}
    where = np.zeros((4, 1, 5), bool)
    for training in True, False:
        y, cache = cybn.batch_norm(
            x, np.ones(3), np.ones(3), residual=residual, activation=activation, where=where,
            training=training, **running,
        )  # fmt: skip
        gradients = cybn.backward(dy, cache)
        for zeros in y, *gradients, gradients.dresidual:
            assert not values_of(zeros).any()
        assert_array_equal(running["running_mean"], 0)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_what_a_mask_leaves_out_of_the_residual_does_not_count(activation, dtype):
    x, residual, dy = drawn(dtype)
    where = np.arange(5) % 2 == 0
    expected = everything(x, residual, dy, activation, where=where)
    spoiled = [np.where(where, array, array.dtype.type(np.nan)) for array in (x, residual, dy)]
    for one, other in zip(everything(*spoiled, activation, where=where), expected, strict=True):
        assert_array_equal(values_of(one), values_of(other))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_nan_and_infinity_in_the_residual_stay_where_they_are(dtype, activation):
    """Forward; backward a NaN or infinity in y alone spoils no other value."""
    x, residual, dy = drawn(dtype)
    expected, _ = cybn.batch_norm(x, residual=residual, activation=activation)
    residual[0, 0, :3] = np.array([np.nan, np.inf, -np.inf]).astype(dtype)
    y, cache = cybn.batch_norm(x, residual=residual, activation=activation)
    assert np.isnan(values_of(y)[0, 0, 0])
    assert values_of(y)[0, 0, 1] == (6 if activation == "relu6" else np.inf)
    if activation not in ("silu",):  # whose -inf / (1 + inf) is none
        lowest = -np.inf if activation is None or isinstance(activation, tuple) else 0
        assert values_of(y)[0, 0, 2] == lowest
    assert_array_equal(values_of(y)[1:], values_of(expected)[1:])
    gradients = cybn.backward(dy, cache)
    assert not np.isnan(values_of(gradients.dx)[:, 1:]).any()
    if activation in (None, "relu", "relu6"):  # a NaN lets dy through, as in PyTorch
        assert not np.isnan(values_of(gradients.dx)).any()
        assert gradients.dresidual[0, 0, 0] == dy[0, 0, 0]
