"""What the tests run cybn on: drawn cases for hypothesis, and a fixed list of telling shapes.

A case holds the arguments of one forward and one backward call. `run_cybn` and `run_reference`
give the same tuple of results for it, so a third implementation only needs a third such function.
"""

import copy
import pickle
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import reference
from hypothesis import strategies as st

import cybn

DTYPES = (np.float32, np.float64)
MEMORY = [(False, False), (True, False), (True, True)]  # a kernel may prefetch, and stream

# (shape, axis) by name. Sizes lie around the lanes, tiles and blocks that a kernel may have (powers
# of two and their neighbours), with few, many and one channel, and rows from one value to long.
SHAPES = {
    "two values": ((2, 1), 1),
    "N, C": ((37, 65), 1),
    "N, C wide": ((3, 1025), 1),
    "N, C tall": ((1031, 2), 1),
    "tile and one": ((257, 64), 1),
    "tile less one": ((255, 63), 1),
    "NCHW": ((3, 17, 9, 11), 1),
    "NHWC": ((3, 9, 11, 17), -1),
    "RGB NCHW": ((2, 3, 33, 31), 1),
    "RGB NHWC": ((2, 33, 31, 3), -1),
    "short rows": ((5, 33, 7, 7), 1),
    "rows of two": ((129, 4, 2), 1),
    "one channel": ((1, 1, 8193), 1),
    "one channel last": ((8193, 1), 1),
    "one sample": ((1, 70, 5, 7), 1),
    "channel first": ((6, 4, 5, 3), 0),
    "channel inside": ((2, 3, 5, 7, 4), 2),
    "rows of a tile": ((3, 4, 512), 1),
    "rows less one": ((3, 4, 511), 1),
    "many long rows": ((70, 2, 513), 1),
    "long rows": ((1, 2, 40_003), 1),
    "very long row": ((1, 1, 262_145), 1),
    "many blocks": ((20_011, 33), 1),
}


@dataclass(frozen=True)
class Case:
    x: np.ndarray
    dy: np.ndarray
    gamma: np.ndarray | None
    beta: np.ndarray | None
    running_mean: np.ndarray | None
    running_var: np.ndarray | None
    training: bool
    momentum: float
    eps: float
    axis: int

    @property
    def options(self):
        return {
            "training": self.training,
            "momentum": self.momentum,
            "eps": self.eps,
            "axis": self.axis,
        }

    @property
    def y_scale(self):
        """|gamma|, shaped to broadcast against y."""
        return self.per_channel(np.abs(_gamma_or_ones(self)))

    @property
    def dx_scale(self):
        """The size of the terms of dx, channel by channel.

        dx itself is no measure: its terms cancel, completely so in a channel of two values.
        """
        return self.y_scale / self.per_channel(self.std) * np.abs(self.dy).max()

    @property
    def offset(self):
        """|mean| / std, shaped to broadcast against y: how far the data lie from 0."""
        return self.per_channel(np.abs(self.moments.mean) / self.std)

    @property
    def std(self):
        return np.sqrt(self.moments.var + self.eps)

    @cached_property
    def moments(self):
        return reference.forward(self.x, None, None, *_running(self), **self.options)

    def per_channel(self, values):
        """Shape an array of shape (C,) such that it broadcasts against x."""
        shape = [1] * self.x.ndim
        shape[self.axis] = -1
        return np.reshape(values, shape)


class Results(NamedTuple):
    y: np.ndarray
    dx: np.ndarray
    dgamma: np.ndarray | None
    dbeta: np.ndarray | None
    running_mean: np.ndarray | None
    running_var: np.ndarray | None


def tracked(running):
    """Running mean and variance, or two Nones, as keywords."""
    return dict(zip(("running_mean", "running_var"), running, strict=True))


def run_cybn(case):
    running = [None if array is None else array.copy() for array in _running(case)]
    y, cache = cybn.forward(case.x, case.gamma, case.beta, **tracked(running), **case.options)
    return Results(y, *cybn.backward(case.dy, cache), *running)


def run_reference(case, dtype=np.longdouble):
    y, mean, var, *running = reference.forward(
        case.x, case.gamma, case.beta, *_running(case), **case.options, dtype=dtype
    )
    dx, dgamma, dbeta = reference.backward(
        case.dy,
        case.x,
        mean,
        var,
        case.gamma,
        training=case.training,
        eps=case.eps,
        axis=case.axis,
        dtype=dtype,
    )
    dgamma = None if case.gamma is None else dgamma
    dbeta = None if case.beta is None else dbeta
    return Results(y, dx, dgamma, dbeta, *running)


def make_case(rng, shape, axis, dtype=np.float32, *, training=True, mean=0.0, std=1.0, eps=1e-5):
    """A case with every parameter, normally distributed."""
    channels = shape[axis]
    return Case(
        x=rng.normal(mean, std, shape).astype(dtype),
        dy=rng.normal(size=shape).astype(dtype),
        gamma=rng.normal(size=channels).astype(dtype),
        beta=rng.normal(size=channels).astype(dtype),
        running_mean=rng.normal(mean, std, channels).astype(dtype),
        running_var=(std**2 * rng.uniform(0.5, 2.0, channels)).astype(dtype),
        training=training,
        momentum=0.1,
        eps=eps,
        axis=axis,
    )


# Ways to copy a layer.
COPIES = {
    "deepcopy": copy.deepcopy,
    **{
        f"pickle, protocol {protocol}": lambda layer, protocol=protocol: pickle.loads(
            pickle.dumps(layer, protocol)
        )
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}


def trained_layer(rng, **options):
    """A layer of 3 channels whose arrays and counters all differ from what they start with."""
    layer = cybn.BatchNorm(3, **options)
    if layer.gamma is not None:
        layer.gamma[:] = rng.normal(size=3)
        layer.beta[:] = rng.normal(size=3)
    for n in (8, 5):
        layer(rng.normal(3.0, 2.0, (n, 3)))
    return layer


def _gamma_or_ones(case):
    return np.ones(case.x.shape[case.axis]) if case.gamma is None else case.gamma


def _running(case):
    return case.running_mean, case.running_var


def _strided(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


def _reversed(array):
    return np.ascontiguousarray(array[::-1])[::-1]


@st.composite
def cases(draw, min_rank=1, dtypes=DTYPES):
    """Any rank up to 5, any axis, layout, mode and choice of parameters."""
    shape = draw(shapes(min_rank))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    channels = shape[axis]
    dtype = draw(st.sampled_from(dtypes))
    layout = draw(st.sampled_from([np.ascontiguousarray, np.asfortranarray, _strided, _reversed]))
    mean = draw(st.sampled_from([0.0, -3.0, 100.0]))
    std = draw(st.sampled_from([1.0, 0.1, 50.0]))
    several_values = np.prod(shape) > channels
    training = draw(st.sampled_from([True, True, False])) if several_values else False
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def parameter(sample):
        return sample.astype(draw(st.sampled_from(DTYPES)))

    affine = draw(st.sampled_from(["both", "gamma", "beta", "none"]))
    tracked = draw(st.booleans()) if training else True
    return Case(
        x=layout(rng.normal(mean, std, shape).astype(dtype)),
        dy=layout(rng.normal(size=shape).astype(dtype)),
        gamma=parameter(rng.normal(size=channels)) if affine in ("both", "gamma") else None,
        beta=parameter(rng.normal(size=channels)) if affine in ("both", "beta") else None,
        running_mean=parameter(rng.normal(mean, std, channels)) if tracked else None,
        running_var=parameter(std**2 * rng.uniform(0.5, 2.0, channels)) if tracked else None,
        training=training,
        momentum=draw(st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0.0, 1.0)),
        eps=draw(st.sampled_from([1e-5, 1e-3, 0.5])),
        axis=axis,
    )


@st.composite
def shapes(draw, min_rank):
    """Small lengths, with one longer one anywhere among them."""
    rank = draw(st.integers(min_rank, 5))
    shape = [draw(st.integers(1, 4)) for _ in range(rank)]
    longer = draw(st.sampled_from([1, 2, 3, 5, 7, 9, 16, 17, 31, 33, 64, 65, 127, 257, 512, 601]))
    shape[draw(st.integers(0, rank - 1))] = longer
    return tuple(shape)
