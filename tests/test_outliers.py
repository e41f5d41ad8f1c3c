"""The promise on accuracy whatever the data: one value far from all others, wherever it stands.

The sums are shifted by a value of the channel, at first its first one. If that is the outlier, what
cancels in the variance is n times as large as the variance. Results are judged by `checks`, the
statistics of few different values by exact fractions.
"""

from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
import reference
from cases import DTYPES, SHAPES, make_case
from cases import run_cybn as run_batch_norm
from cases import run_reference as run_batch_reference
from checks import assert_results_nearest
from norms import assert_results_nearest as assert_norm_nearest
from norms import make_norm_case, run_cybn, run_reference

import cybn

# Of a statistic: mean (of a deviation) and variance. Each is a few thousand roundings at the most,
# of 1.1e-16, most of which cancel.
TOLERANCE = 1e-13

OUTLIERS = [1e3, 1e6, 1e8]
PLACES = {"first": 0, "second": 1, "middle": None, "last": -1}
all_places = pytest.mark.parametrize("place", PLACES)
all_outliers = pytest.mark.parametrize("outlier", OUTLIERS)
all_dtypes = pytest.mark.parametrize("dtype", DTYPES)

BATCH = ["N, C", "N, C tall", "NCHW", "NHWC", "RGB NHWC", "short rows", "long rows"]
NORMS = [
    *("layer, sequences", "layer, tall", "layer, very long rows", "RMS", "instance NCHW"),
    *("instance NHWC", "group NCHW", "group NHWC", "weight OI"),
    *("conditional NCHW", "conditional NHWC", "conditional, many channels last", "two axes"),
    *("masked N, C", "masked NCHW", "masked NHWC", "masked, two axes"),
]


def put(rows, outlier, place):
    """Set a value of each row, in the order of the row."""
    position = rows.shape[-1] // 2 if PLACES[place] is None else PLACES[place]
    rows[..., position] = outlier


@all_dtypes
@all_outliers
@all_places
@pytest.mark.parametrize("name", BATCH)
def test_batch_norm(rng, name, place, outlier, dtype):
    shape, axis = SHAPES[name]
    case = make_case(rng, shape, axis, dtype)
    rows = np.moveaxis(case.x, axis, 0).reshape(shape[axis], -1).copy()
    put(rows, outlier, place)
    channels_first = np.moveaxis(case.x, axis, 0)
    channels_first[...] = rows.reshape(channels_first.shape)
    assert_results_nearest(run_batch_norm(case), run_batch_reference(case), case)


@all_dtypes
@all_outliers
@all_places
@pytest.mark.parametrize("name", NORMS)
def test_every_norm(rng, name, place, outlier, dtype):
    case = make_norm_case(rng, name, dtype)
    view = case.x.reshape(case.view.shape)  # of x's memory
    selected = ~np.isnan(view)
    kept = [axis for axis in range(view.ndim) if axis not in case.view.over]
    for index in np.ndindex(*(view.shape[axis] for axis in kept)):
        statistic = [slice(None)] * view.ndim
        for axis, position in zip(kept, index, strict=True):
            statistic[axis] = position
        values = view[tuple(statistic)][selected[tuple(statistic)]]
        put(values, outlier, place)
        view[tuple(statistic)][selected[tuple(statistic)]] = values
    assert_norm_nearest(run_cybn(case), run_reference(case), case)


def exact_moments(values, counts):
    """Mean and variance, as fractions, of values each of which is there so many times."""
    fractions = [Fraction(float(value)) for value in values]
    n = sum(counts)
    mean = sum(f * count for f, count in zip(fractions, counts, strict=True)) / n
    squares = sum((f - mean) ** 2 * count for f, count in zip(fractions, counts, strict=True))
    return mean, squares / n


def assert_moments_exact(moments, mean, var):
    for channel in range(moments.mean.size):
        error = abs(Fraction(float(moments.mean[channel])) - mean)
        assert error <= TOLERANCE * Fraction(sqrt(var)) + Fraction(float(mean)) / 2**52
        assert abs(Fraction(float(moments.var()[channel])) - var) <= TOLERANCE * var


# Channels of n values: as a row, as columns, as short rows, and with a mask.
LAYOUTS = {
    "row": (lambda x: x.reshape(1, 1, -1), 1, False),
    "columns": (lambda x: np.stack([x, x], axis=1), 1, False),
    "short rows": (lambda x: np.stack([x.reshape(-1, 10)] * 3, axis=1), 1, False),
    "masked row": (lambda x: x.reshape(1, 1, -1), 1, True),
    "masked columns": (lambda x: np.stack([x, x], axis=1), 1, True),
}


@all_dtypes
@all_places
@pytest.mark.parametrize(
    ("outlier", "others"),
    [(0.1, [0.0]), *((outlier, [0.1, -0.3, 0.7]) for outlier in OUTLIERS), (3.0, [1e-3, 1.0])],
)
@pytest.mark.parametrize("n", [1000, 30_000, 1_000_000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_moments_of_few_values(layout, n, outlier, others, place, dtype):
    arrange, axis, masked = LAYOUTS[layout]
    x = np.resize(np.array(others, dtype), n)
    put(x, outlier, place)
    values, counts = np.unique(x, return_counts=True)
    where = None
    if masked:  # what it leaves out is far off, too
        x, selected = np.repeat(x, 2), np.resize([False, True], 2 * n)
        x[::2] = -1e9
        where = arrange(selected)
        x = arrange(x)
        moments = cybn.moments(x, (axis,), where)
    else:
        moments = cybn.moments(arrange(x), axis)
    assert_moments_exact(moments, *exact_moments(values, counts.tolist()))


@pytest.mark.parametrize("shape", [(1, 1, 100_000_000), (100_000_000, 1)])
def test_hundred_million_values(shape):
    """y, too: the variance of one value that is far off is (n - 1) / n**2 times its square."""
    x = np.zeros(shape, np.float32)
    x.flat[0] = 0.1
    n = x.size
    mean, var = exact_moments([x.flat[0], 0.0], [1, n - 1])
    y, cache = cybn.forward(x, eps=1e-30)
    assert abs(Fraction(float(cache.var[0])) - var) <= TOLERANCE * var
    assert abs(Fraction(float(cache.mean[0])) - mean) <= TOLERANCE * Fraction(sqrt(var))
    for value, place in ((0.1, 0), (0.0, n // 3), (0.0, n - 1)):
        exact = float((Fraction(float(np.float32(value))) - mean) / Fraction(sqrt(var)))
        actual = float(y.flat[place])
        assert abs(actual - exact) <= np.spacing(np.float32(abs(exact))) / 2 + 1e-9


@pytest.mark.parametrize("n", [2, 33, 1000])
def test_sum_squared_beyond_float64(n):
    """The square of the sum overflows long before the sum of the squares does."""
    x = np.resize(np.array([3.0, 2.0]), n)[:, None] * 1e152
    exact = reference.forward(x / 1e152, dtype=np.longdouble)
    moments = cybn.moments(x)
    assert moments.var()[0] == pytest.approx(float(exact.var[0]) * 1e152 * 1e152, rel=1e-13)


def test_constant_channels_beside_an_outlier(rng):
    """A channel that is summed once more changes no bit of its neighbours."""
    x = rng.normal(size=(257, 9))
    x[:, 4] = 0.1
    clean, _ = cybn.forward(x)
    x[0, 2] = 1e6
    y, cache = cybn.forward(x)
    others = [channel for channel in range(9) if channel != 2]
    np.testing.assert_array_equal(y[:, others], clean[:, others])
    assert cache.var[4] == 0
    assert cache.mean[4] == 0.1


@pytest.mark.parametrize("channel", [0, 1, 3])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("shape", "axis"), [((100_003, 4), 1), ((1, 4, 100_003), 1)])
def test_outlier_in_one_channel(shape, axis, threads, channel):
    """Whichever it is: of a tile, and of parts that threads share out."""
    x = np.zeros(shape)
    rows = np.moveaxis(x, axis, 0).reshape(4, -1)
    rows[:] = np.resize([0.1, -0.3, 0.7], rows.shape[1])
    rows[channel, 0] = 1e6
    np.moveaxis(x, axis, 0)[...] = rows.reshape(np.moveaxis(x, axis, 0).shape)
    values, counts = np.unique(rows[channel], return_counts=True)
    with cybn.num_threads(threads):
        var = cybn.forward(x, axis=axis)[1].var[channel]
    exact = exact_moments(values, counts.tolist())[1]
    assert abs(Fraction(float(var)) - exact) <= TOLERANCE * exact
