"""Whatever comes as an argument: the right result, or an error that names it; no other change."""

import numpy as np
import pytest
import reference
from checks import refused
from hostile import ARGUMENTS, SPOIL, table
from numpy.testing import assert_allclose, assert_array_equal

import cybn

SHAPE, CHANNELS = (4, 3, 5), 3
ERRORS = {"T": TypeError, "V": ValueError}
WRITTEN = ("running_mean", "running_var", "out", "dx")


def good_arguments():
    rng = np.random.default_rng(2)
    arguments = {name: rng.normal(size=CHANNELS) for name in ARGUMENTS}
    arguments |= {name: rng.normal(size=SHAPE) for name in ("x", "dy", "out", "dx")}
    arguments["running_var"] **= 2
    return {name: value.astype(np.float32) for name, value in arguments.items()}


def forward(arguments):
    names = ("x", "gamma", "beta", "running_mean", "running_var", "out")
    return cybn.forward(**{name: arguments[name] for name in names})


def backward(arguments, cache):
    return cybn.backward(arguments["dy"], cache, out=arguments["dx"])


def expected_results(x, dy, gamma, beta, running_mean, running_var):
    with np.errstate(all="ignore"):
        forward = reference.forward(x, gamma, beta, running_mean, running_var, dtype=np.longdouble)
        backward = reference.backward(dy, x, *forward[1:3], gamma, dtype=np.longdouble)
    return [forward.y, *forward[3:], *backward]


def assert_right(actual, exact):
    with np.errstate(over="ignore"):
        expected = exact.astype(actual.dtype)
    finite = np.isfinite(expected)
    assert_array_equal(np.isfinite(actual), finite)
    tolerance = 2e-6 * np.abs(expected[finite]).max(initial=1e-8)
    assert_allclose(actual[finite], expected[finite], rtol=2e-6, atol=tolerance)


def memory(value):
    """The bytes of an argument, whatever it is."""
    return value.tobytes() if isinstance(value, np.ndarray) else repr(value)


def check_right(**spoiled):
    arguments = good_arguments() | spoiled
    inputs = {name: np.array(arguments[name]) for name in ARGUMENTS[:6]}
    read = [value for name, value in arguments.items() if name not in WRITTEN]
    before = [memory(value) for value in read]

    y, cache = forward(arguments)
    dx, dgamma, dbeta = backward(arguments, cache)

    results = [y, arguments["running_mean"], arguments["running_var"], dx, dgamma, dbeta]
    for actual, exact in zip(results, expected_results(**inputs), strict=True):
        assert_right(np.asarray(actual), exact)
    assert [memory(value) for value in read] == before
    for given, result in ((arguments["out"], y), (arguments["dx"], dx)):
        assert given is None or result is given


def check_refused(error, argument, **spoiled):
    arguments = good_arguments() | spoiled
    arrays = [value for value in arguments.values() if isinstance(value, np.ndarray)]
    if argument in ("dy", "dx"):
        _, cache = forward(arguments)
        with refused(error, r"\bout\b" if argument == "dx" else r"\bdy\b", *arrays):
            backward(arguments, cache)
    else:
        with refused(error, rf"\b{argument}\b", *arrays):
            forward(arguments)


@pytest.mark.parametrize(("how", "argument", "outcome"), list(table()))
def test_array(how, argument, outcome):
    hostile = SPOIL[how](good_arguments()[argument])
    if outcome != "R":
        check_refused(ERRORS[outcome], argument, **{argument: hostile})
    elif argument in ("out", "dx"):
        check_right(**{argument: hostile})
    else:  # the result may be of another dtype
        check_right(out=None, dx=None, **{argument: hostile})


# Where each argument begins in one buffer: side by side, to be moved one at a time.
PLACES = {
    **{"x": 0, "dy": 60, "out": 120, "dx": 180},
    **{"gamma": 240, "beta": 243, "running_mean": 246, "running_var": 249},
}


def in_one_buffer(**moved):
    buffer = np.random.default_rng(3).uniform(size=300).astype(np.float32)
    places = PLACES | moved
    return {
        name: buffer[places[name] :][: array.size].reshape(array.shape)
        for name, array in good_arguments().items()
    }


@pytest.mark.parametrize("moved", [{}, {"gamma": 243}, {"dy": 0}, {"gamma": 7, "beta": 8}], ids=str)
def test_neighbours_in_memory_and_what_is_only_read(moved):
    check_right(**in_one_buffer(**moved))


@pytest.mark.parametrize(
    ("moved", "start", "named"),
    [
        *(("out", start, "out") for start in (0, 1, 59)),  # x
        *(("dx", start, "dx") for start in (0, 1, 59, 61, 119)),  # x, dy or both
        *(("gamma", start, "out") for start in (118, 150, 179)),
        *(("beta", start, "out") for start in (118, 150, 179)),
        *(("running_mean", start, "(out|running_mean)") for start in (118, 150, 179)),
        *(("running_mean", start, "running_(mean|var)") for start in (248, 249, 250)),
        *(("running_mean", start, "running_mean") for start in (0, 59, 238, 244)),
        *(("running_var", start, "running_var") for start in (0, 59, 238, 244)),
    ],
)
def test_overlap_with_what_is_written(moved, start, named):
    check_refused(ValueError, named, **in_one_buffer(**{moved: start}))


class Grudging:
    """A number that refuses to be one."""

    def __float__(self):
        raise ZeroDivisionError

    __index__ = __float__


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *(("training", value, TypeError) for value in (1, None, "no", np.ones(1), [])),
        *(("momentum", value, ValueError) for value in (-1e-300, 1 + 1e-15, np.nan, 10**400)),
        *(("momentum", value, TypeError) for value in ("0.1", None, 1j, [0.1], np.zeros(3))),
        *(("eps", value, ValueError) for value in (0, -0.0, -1e-300, np.nan, np.inf, 10**400)),
        *(("eps", value, TypeError) for value in ("1e-5", None, 1j, Grudging())),
        *(("axis", value, ValueError) for value in (3, -4, 2**63, -(2**63) - 1, 10**400)),
        *(("axis", value, TypeError) for value in (1.0, "1", None, ("1",), np.ones(1), [], {})),
    ],
)
def test_option(name, value, error):
    arguments = {
        "x": np.ones((4, 3, 5), np.float32),
        "running_mean": np.ones(3),
        "running_var": np.ones(3),
    }
    with refused(error, rf"\b{name}\b", *arguments.values()):
        cybn.forward(**arguments, **{name: value})


@pytest.mark.parametrize("eps", [5e-324, 1.7e308])
def test_extreme_eps(eps):
    x = np.random.default_rng(4).normal(size=(9, 3))
    exact = reference.forward(x, eps=eps, dtype=np.longdouble).y
    assert_allclose(cybn.forward(x, eps=eps)[0], exact, rtol=1e-13)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "shape", [(0, 3), (0, 3, 5), (4, 3, 0), (0, 3, 0), (4, 0), (0, 0), (4, 0, 5)]
)
def test_no_values(shape, training):
    x, channels = np.zeros(shape, np.float32), shape[1]
    gamma, running_mean, running_var = np.ones((3, channels), np.float32)
    y, cache = cybn.forward(
        x, gamma, gamma, running_mean=running_mean, running_var=running_var, training=training
    )
    dx, dgamma, dbeta = cybn.backward(x, cache)
    assert y.shape == dx.shape == shape
    for unchanged in (running_mean, running_var):
        assert_array_equal(unchanged, np.ones(channels))
    for zero in (dgamma, dbeta):
        assert_array_equal(zero, np.zeros(channels))


EMPTY = {
    "batch": (lambda x: cybn.forward(x), (4, 0), (0,)),
    "no samples": (lambda x: cybn.forward(x), (0, 3), (3,)),
    "layer": (lambda x: cybn.layer_norm(x), (4, 0), (4,)),
    "instance": (lambda x: cybn.instance_norm(x), (0, 3, 4), (0, 3)),
    "group": (lambda x: cybn.group_norm(x, 2), (3, 4, 0), (3, 2)),
    "group, no channels": (lambda x: cybn.group_norm(x, 2), (3, 0, 5), (3, 2)),
}


@pytest.mark.parametrize(("norm", "shape", "statistics"), EMPTY.values(), ids=EMPTY)
def test_cache_of_no_values(norm, shape, statistics):
    y, cache = norm(np.empty(shape))
    for values in (cache.mean, cache.var, cache.invstd):
        assert_array_equal(values, np.full(statistics, np.nan))
    assert cybn.backward(y, cache).dx.shape == shape


@pytest.mark.parametrize("cache", [None, 1, (), {}, np.ones(SHAPE), cybn.Cache, cybn.Gradients])
def test_cache(cache):
    with refused(TypeError, r"\bcache\b"):
        cybn.backward(np.ones(SHAPE), cache)


@pytest.mark.parametrize(
    "change", [np.asfortranarray, lambda x: x[:2].copy(), lambda x: x[..., ::2]]
)
def test_cache_whose_x_was_changed(change):
    x = good_arguments()["x"]
    _, cache = cybn.forward(x)
    cache.x = change(x)
    with refused(ValueError, r"\bcache\b", x):
        cybn.backward(cache.x, cache)


LAYER_OPTIONS = [
    *(("num_features", value, ValueError) for value in (0, -1)),
    *(("num_features", value, TypeError) for value in (1.0, "3", None, [3])),
    *(("axis", value, TypeError) for value in (1.0, None)),
    *(("eps", value, ValueError) for value in (0, np.nan)),
    *(("momentum", value, ValueError) for value in (2, np.nan)),
    *(("affine", value, TypeError) for value in (1, None)),
    *(("track_running_stats", value, TypeError) for value in (0, "yes")),
    *(("dtype", value, TypeError) for value in ("V2", int, "f5", None.__class__, object)),
]


@pytest.mark.parametrize(("name", "value", "error"), LAYER_OPTIONS)
def test_layer_option(name, value, error):
    with pytest.raises(error, match=rf"\b{name}\b"):
        cybn.BatchNorm(**({"num_features": 3} | {name: value}))


def test_file_with_pickled_objects_is_refused_unread(tmp_path):
    """NumPy does not unpickle unless told to, and cybn never tells it."""

    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    layer = cybn.BatchNorm(3)
    state = layer.state_dict() | {"bias": np.array([Trap()] * 3)}
    np.savez(tmp_path / "state.npz", **state)
    with np.load(tmp_path / "state.npz") as file, refused(ValueError, "allow_pickle", layer.gamma):
        layer.load_state_dict(file)
    assert not (tmp_path / "sprung").exists()
