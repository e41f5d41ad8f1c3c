"""Gradients of activation= and residual=: PyTorch's in float64, and central differences."""

from itertools import product

import numpy as np
import pytest
import reference
import reference_fused
from cases import DTYPES, make_case, tracked
from checks import assert_close, numerical_gradient
from halves import HALVES, assert_nearest_half, nearest, values_of
from reference_fused import ACTIVATIONS

import cybn

ALL_DTYPES = [np.dtype(dtype) for dtype in (*HALVES.values(), *DTYPES)]

# float32 results are rounded once (6e-8), float64 ones are the work of some dozens of roundings,
# here and in PyTorch.
TOLERANCES = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-11}

KINKS = {"relu": (0,), "relu6": (0, 6), "leaky_relu": (0,), "hardswish": (-3, 3)}
# How far from a kink dy is taken off, as the derivative may be that of either side: y is rounded,
# as bfloat16 to 6 from up to 2**-6 away.
AROUND = 0.02

LAYOUTS = {  # (shape, axis)
    "NCHW": ((3, 5, 7, 4), 1),
    "NHWC": ((3, 7, 4, 5), -1),
    "N, C": ((40, 19), 1),
    "N, C, T": ((4, 3, 37), 1),
    "N, T, C": ((4, 9, 33), -1),
}


def rounded(array, dtype):
    return nearest(array, dtype) if dtype in HALVES.values() else array.astype(dtype)


def drawn(rng, shape, axis, dtype, training, with_residual, masked):
    """The arguments of a call, by name, and dy; every second time parameters of x's own dtype."""
    case = make_case(rng, shape, axis, np.float64, training=training, mean=0.5)
    parameters = dtype if rng.integers(2) else np.dtype(rng.choice(DTYPES))
    arguments = {
        "x": rounded(case.x, dtype),
        "gamma": rounded(3 * case.gamma, parameters),
        "beta": rounded(case.beta, parameters),
        "running_mean": case.running_mean,
        "running_var": case.running_var,
        "training": training,
        "axis": axis,
    }
    if with_residual:
        beside = dtype.itemsize == 2 and rng.integers(2)
        kind = np.dtype(np.float32) if beside else dtype
        arguments["residual"] = rounded(rng.normal(size=shape), kind)
    if masked:
        lengths = list(shape)
        lengths[axis] = 1
        where = rng.random(lengths) < 0.7
        where.flat[:2] = True
        arguments["where"] = where
    return arguments, rounded(case.dy, dtype)


def far_from_kinks(activation, v):
    name = activation[0] if isinstance(activation, tuple) else activation
    return np.all([np.abs(v - kink) > AROUND for kink in KINKS.get(name, ())], axis=0) | (v != v)


class Peer:
    """PyTorch in float64, on the selected places by channels."""

    def __init__(self, torch, arguments, activation):
        self.torch, self.activation = torch, activation
        self.axis, shape = arguments["axis"], arguments["x"].shape
        self.selected = self.rows(np.broadcast_to(arguments.get("where", True), shape))[:, 0]
        self.shape = np.moveaxis(np.empty(shape), self.axis, -1).shape
        names = "x", "residual", "gamma", "beta"
        self.leaves = {
            name: self.leaf(arguments[name], name) for name in names if name in arguments
        }
        functional = torch.nn.functional
        v = functional.batch_norm(
            self.leaves["x"],
            *(torch.tensor(arguments[name]) for name in ("running_mean", "running_var")),
            self.leaves["gamma"],
            self.leaves["beta"],
            arguments["training"],
        )
        self.v = v + self.leaves["residual"] if "residual" in self.leaves else v
        self.y = self.activate(functional)

    def rows(self, array):
        return np.moveaxis(array, self.axis, -1).reshape(-1, array.shape[self.axis])

    def leaf(self, array, name):
        array = values_of(array)
        if name in ("x", "residual"):
            array = self.rows(array)[self.selected]
        return self.torch.tensor(array, requires_grad=True)

    def activate(self, functional):
        match self.activation:
            case None:
                return self.v
            case (name, slope):
                return getattr(functional, name)(self.v, slope)
            case name:
                return getattr(functional, name)(self.v)

    def whole(self, rows):
        """Of x's shape, with 0 where nothing is selected."""
        array = np.zeros((len(self.selected), rows.shape[1]))
        array[self.selected] = rows
        return np.moveaxis(array.reshape(self.shape), -1, self.axis)

    def backward(self, dy):
        self.y.backward(self.torch.tensor(self.rows(values_of(dy))[self.selected]))
        gradients = {name: leaf.grad.numpy() for name, leaf in self.leaves.items()}
        return {
            name: self.whole(gradient) if name in ("x", "residual") else gradient
            for name, gradient in gradients.items()
        }


def assert_agrees(actual, expected, scale):
    if actual.dtype in TOLERANCES:
        assert_close(actual, expected, TOLERANCES[actual.dtype], scale)
    else:
        assert_nearest_half(actual, expected, scale)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_gradients_are_those_of_pytorch(rng, activation, dtype):
    """40 cases each, 960 in all: training, residual, mask and layout."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # its OpenMP pool and ours would fight for the cores
    flags = [True, False]
    for (shape, axis), *options in product(LAYOUTS.values(), flags, flags, flags):
        arguments, dy = drawn(rng, shape, axis, dtype, *options)
        peer = Peer(torch, arguments, activation)
        v = peer.whole(peer.v.detach().numpy())
        dy = np.where(far_from_kinks(activation, v), dy, np.zeros((), dtype))
        running = [arguments[name].copy() for name in ("running_mean", "running_var")]
        y, cache = cybn.batch_norm(activation=activation, **(arguments | tracked(running)))
        gradients = cybn.backward(dy, cache)
        expected = peer.backward(dy)

        size = 2 * np.abs(arguments["gamma"].astype(float)).max()
        assert_agrees(y, peer.whole(peer.y.detach().numpy()), size + np.abs(v).max())
        # dx: derivatives are below 1.2, dy of order 4; 1 / std may be 2 and more.
        assert_agrees(gradients.dx, expected["x"], 10 * size)
        assert_agrees(gradients.dgamma, expected["gamma"], np.abs(values_of(dy)).sum())
        assert_agrees(gradients.dbeta, expected["beta"], np.abs(values_of(dy)).sum())
        if "residual" in arguments:
            assert gradients.dresidual.dtype == arguments["residual"].dtype
            assert_agrees(gradients.dresidual, expected["residual"], 10)
        else:
            assert gradients.dresidual is None


# Central differences of step h in longdouble are off by h**2 / 6 times the third derivative of
# order 100, and by the rounding of the loss (1e-18) over h: with h = 1e-6 some 1e-11 and 1e-12.
STEP = np.longdouble(1e-6)
TOLERANCE = 1e-8


@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_gradients_by_differences_of_the_textbook(rng, activation, dtype, training, with_residual):
    """Of values alone, in longdouble: no derivative was written down for it."""
    for shape, axis in ((6, 3), 1), ((3, 2, 2, 2), -1):
        arguments, dy = drawn(rng, shape, axis, dtype, training, with_residual, False)
        names = "x", "gamma", "beta", "residual"
        wide = {
            name: values_of(arguments[name]).astype(np.longdouble)
            for name in names
            if name in arguments
        }
        options = {"training": training, "axis": axis, "dtype": np.longdouble}
        statistics = arguments["running_mean"], arguments["running_var"]

        def activated(wide=wide, statistics=statistics, options=options):
            norm = reference.forward(wide["x"], wide["gamma"], wide["beta"], *statistics, **options)
            return norm.y + wide.get("residual", 0)

        dy = np.where(far_from_kinks(activation, activated()), dy, np.zeros((), dtype))
        wide_dy = values_of(dy).astype(np.longdouble)

        def loss(activated=activated, wide_dy=wide_dy):
            return np.sum(reference_fused.value(activation, activated()) * wide_dy)

        running = [array.copy() for array in statistics]
        _, cache = cybn.batch_norm(activation=activation, **(arguments | tracked(running)))
        gradients = cybn.backward(dy, cache)
        actual = dict(zip(names, (*gradients, gradients.dresidual), strict=True))
        for name, array in wide.items():
            # Half an ulp of the result's own dtype beside the error of the differences.
            ulp = {2: 2.0**-8, 4: 2.0**-24, 8: 0}[actual[name].dtype.itemsize]
            np.testing.assert_allclose(
                values_of(actual[name]),
                numerical_gradient(loss, array, STEP).astype(np.float64),
                rtol=ulp + TOLERANCE,
                atol=TOLERANCE * 10 + (3e-8 if ulp else 0),
                err_msg=name,
            )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_gradients_by_differences_with_a_mask(rng, activation, training):
    """Of cybn's own values in float64; what is left out has no influence, and no gradient."""
    arguments, dy = drawn(rng, (5, 3, 4), 1, np.dtype("f8"), training, True, True)
    arguments |= {name: arguments[name].astype(float) for name in ("gamma", "beta")}
    statistics = arguments.pop("running_mean"), arguments.pop("running_var")

    def forward(activation):
        running = [array.copy() for array in statistics]
        return cybn.batch_norm(activation=activation, **arguments, **tracked(running))

    dy = np.where(far_from_kinks(activation, forward(None)[0]), dy, 0)
    gradients = cybn.backward(dy, forward(activation)[1])
    names = "x", "gamma", "beta", "residual"
    for name, gradient in zip(names, (*gradients, gradients.dresidual), strict=True):
        loss = lambda: np.sum(forward(activation)[0] * dy)  # noqa: E731
        numerical = numerical_gradient(loss, arguments[name], STEP)
        # In float64 the rounding of the loss, 1e-14, over h is 1e-8.
        np.testing.assert_allclose(gradient, numerical, atol=1e-6, err_msg=name)
