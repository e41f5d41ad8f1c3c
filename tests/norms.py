"""Every norm but plain batch norm as cases to run, as `cases` does for that one.

A case holds the arguments of one call and its `dy`. `run_cybn` and `run_reference` give the same
tuple of results for it. What a mask leaves out of x and dy is NaN.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import reference_norms as reference
from cases import DTYPES, shapes
from checks import assert_nearest
from hypothesis import assume
from hypothesis import strategies as st

import cybn


class Norm(NamedTuple):
    function: Callable
    view: Callable  # the reference's
    parameters: tuple = ("gamma", "beta")
    axis: int = 1  # the default
    per_sample: bool = False  # gamma and beta have a row for each sample


NORMS = {
    "batch": Norm(cybn.forward, reference.batch_view),
    "conditional batch": Norm(cybn.forward, reference.conditional_view, per_sample=True),
    "layer": Norm(cybn.layer_norm, reference.layer_view, axis=-1),
    "RMS": Norm(cybn.rms_norm, reference.rms_view, ("gamma",), axis=-1),
    "instance": Norm(cybn.instance_norm, reference.instance_view),
    "adaptive instance": Norm(
        cybn.instance_norm, reference.adaptive_instance_view, per_sample=True
    ),
    "group": Norm(cybn.group_norm, reference.group_view),
    "weight": Norm(cybn.weight_standardize, reference.weight_view, (), axis=0),
}

# By name: the norm, the shape, the options, and for a mask its shape. Sizes lie around the lanes,
# tiles and blocks that a kernel may have.
SHAPES = {
    "layer": ("layer", (37, 65), {}),
    "layer, one value": ("layer", (5, 1), {}),
    "layer, wide": ("layer", (3, 1025), {}),
    "layer, tall": ("layer", (20_011, 3), {}),
    "layer, very long rows": ("layer", (2, 40_003), {}),
    "layer, sequences": ("layer", (4, 9, 768), {}),
    "layer, two axes": ("layer", (5, 6, 33), {"axis": (-2, -1)}),
    "layer, three axes": ("layer", (3, 4, 5, 7), {"axis": (1, 2, 3)}),
    "layer, all axes": ("layer", (4, 3), {"axis": (0, 1)}),
    "RMS": ("RMS", (37, 65), {}),
    "RMS, wide": ("RMS", (3, 1025), {}),
    "RMS, tall": ("RMS", (20_011, 3), {}),
    "RMS, very long rows": ("RMS", (2, 40_003), {}),
    "RMS, two axes": ("RMS", (3, 4, 5, 7), {"axis": (2, 3)}),
    "instance NCHW": ("instance", (3, 17, 9, 11), {}),
    "instance NHWC": ("instance", (3, 9, 11, 17), {"axis": -1}),
    "instance RGB NCHW": ("instance", (2, 3, 33, 31), {}),
    "instance RGB NHWC": ("instance", (2, 33, 31, 3), {"axis": -1}),
    "instance, short rows": ("instance", (5, 33, 7, 7), {}),
    "instance, rows of two": ("instance", (129, 4, 2), {}),
    "instance, very long rows": ("instance", (1, 2, 40_003), {}),
    "instance, very tall": ("instance", (2, 20_011, 3), {"axis": -1}),
    "instance, many channels last": ("instance", (2, 35, 1025), {"axis": -1}),
    "instance, channel inside": ("instance", (2, 3, 5, 7, 4), {"axis": 2}),
    "group NCHW": ("group", (3, 12, 5, 7), {"num_groups": 3}),
    "group NHWC": ("group", (3, 5, 7, 12), {"num_groups": 3, "axis": -1}),
    "group N, C": ("group", (37, 66), {"num_groups": 6}),
    "group, one group": ("group", (3, 17, 9, 11), {"num_groups": 1}),
    "group, one channel each": ("group", (3, 17, 9, 11), {"num_groups": 17}),
    "group, many": ("group", (2, 64, 17, 15), {"num_groups": 32}),
    "group, many NHWC": ("group", (2, 17, 15, 64), {"num_groups": 32, "axis": -1}),
    "group, short rows": ("group", (5, 34, 7, 7), {"num_groups": 2}),
    "group, very long rows": ("group", (1, 4, 40_003), {"num_groups": 2}),
    "group, very tall": ("group", (1, 20_011, 6), {"num_groups": 3, "axis": -1}),
    "group, channel inside": ("group", (2, 3, 6, 7, 4), {"num_groups": 2, "axis": 2}),
    "group, wider than a tile": ("group", (2, 5, 2 * 1031), {"num_groups": 2, "axis": -1}),
    "weight OI": ("weight", (33, 129), {}),
    "weight OIHW": ("weight", (64, 3, 3, 3), {}),
    "weight HWIO": ("weight", (3, 3, 17, 64), {"axis": -1}),
    "conditional N, C": ("conditional batch", (37, 65), {}),
    "conditional NCHW": ("conditional batch", (3, 17, 9, 11), {}),
    "conditional NHWC": ("conditional batch", (3, 9, 11, 17), {"axis": -1}),
    "conditional RGB NCHW": ("conditional batch", (2, 3, 33, 31), {}),
    "conditional RGB NHWC": ("conditional batch", (2, 33, 31, 3), {"axis": -1}),
    "conditional, many channels last": ("conditional batch", (3, 70, 1025), {"axis": -1}),
    "conditional, long rows": ("conditional batch", (33, 2, 513), {}),
    "conditional, channel inside": ("conditional batch", (2, 3, 5, 7, 4), {"axis": 2}),
    "adaptive instance NCHW": ("adaptive instance", (3, 17, 9, 11), {}),
    "adaptive instance NHWC": ("adaptive instance", (3, 9, 11, 17), {"axis": -1}),
    "two axes": ("batch", (37, 5, 13), {"axis": (1, 2)}),
    "two axes inside": ("batch", (3, 7, 5, 4), {"axis": (1, 2)}),
    "two axes first": ("batch", (4, 3, 2, 65), {"axis": (0, 1)}),
    "three axes": ("batch", (129, 3, 5, 7), {"axis": (-3, -2, -1)}),
    "masked N, C": ("batch", (257, 65), {}, (257, 1)),
    "masked NCHW": ("batch", (3, 17, 9, 11), {}, (3, 1, 9, 11)),
    "masked NHWC": ("batch", (3, 9, 11, 17), {"axis": -1}, (3, 9, 11, 1)),
    "masked RGB NCHW": ("batch", (2, 3, 33, 31), {}, (2, 1, 33, 31)),
    "masked RGB NHWC": ("batch", (2, 33, 31, 3), {"axis": -1}, (2, 33, 31, 1)),
    "masked, many channels last": ("batch", (3, 70, 1025), {"axis": -1}, (3, 70, 1)),
    "masked, short rows": ("batch", (5, 33, 7, 7), {}, (5, 1, 7, 7)),
    "masked, very long rows": ("batch", (1, 2, 40_003), {}, (1, 1, 40_003)),
    "masked, very tall": ("batch", (20_011, 33), {}, (20_011, 1)),
    "masked samples": ("batch", (13, 17, 9, 11), {}, (13, 1, 1, 1)),
    "masked places": ("batch", (3, 17, 9, 11), {}, (9, 11)),
    "masked rows": ("batch", (3, 17, 9, 11), {}, (9, 1)),
    "masked time": ("batch", (6, 40, 33), {"axis": 2}, (6, 40, 1)),
    "masked, two axes": ("batch", (9, 40, 33), {"axis": (1, 2)}, (9, 40, 1)),
}


@dataclass(frozen=True)
class NormCase:
    norm: Norm
    x: np.ndarray
    dy: np.ndarray
    gamma: np.ndarray | None
    beta: np.ndarray | None
    options: dict
    where: np.ndarray | None
    eps: float

    @property
    def view(self):
        """The reference's."""
        return self.norm.view(self.x.shape, **self.options)

    @property
    def arguments(self):
        """The keyword arguments of the call."""
        parameters = {name: getattr(self, name) for name in self.norm.parameters}
        mask = {} if self.where is None else {"where": self.where}
        return parameters | self.options | mask | {"eps": self.eps}

    @cached_property
    def moments(self):
        _, *moments = reference.forward(self.view, self.x, where=self.where)
        return moments

    @property
    def std(self):
        return np.sqrt(self.moments[1] + self.eps)

    @property
    def offset(self):
        """|mean| / std, in x's shape: how far the data lie from 0."""
        return self.like_x(np.abs(self.moments[0]) / self.std)

    @property
    def y_scale(self):
        """|gamma|, in x's shape."""
        ones = np.ones([1] * len(self.view.shape))
        gamma = ones if self.gamma is None else np.abs(self.gamma).reshape(self.view.parameters)
        return self.like_x(gamma)

    @property
    def dx_scale(self):
        """The size of the terms of dx, in x's shape: they cancel, so dx itself is no measure."""
        gamma = self.y_scale.reshape(self.view.shape).max(axis=self.view.over, keepdims=True)
        return self.like_x(gamma / self.std * np.nanmax(np.abs(self.dy)))

    def terms(self, parameter):
        """The sizes of the terms of a parameter's gradient, added up."""
        sizes = np.nan_to_num(np.abs(self.dy)).reshape(self.view.shape)
        return reference.sum_like(self.view, sizes, parameter)

    def like_x(self, values):
        """Spread what broadcasts against the view to x's shape."""
        return np.broadcast_to(values, self.view.shape).reshape(self.x.shape)


class Results(NamedTuple):
    y: np.ndarray
    dx: np.ndarray
    dgamma: np.ndarray | None
    dbeta: np.ndarray | None


def run_cybn(case):
    y, cache = case.norm.function(case.x, **case.arguments)
    return Results(y, *cybn.backward(case.dy, cache))


def run_reference(case, dtype=np.longdouble):
    parameters = case.gamma, case.beta
    options = {"eps": case.eps, "where": case.where, "dtype": dtype}
    y, *moments = reference.forward(case.view, case.x, *parameters, **options)
    gradients = reference.backward(case.view, case.dy, case.x, *moments, *parameters, **options)
    return Results(y, *gradients)


def assert_results_nearest(actual, exact, case):
    """`checks.assert_nearest` for all results, where exact comes from the reference."""
    offset = case.offset
    assert_nearest(actual.y, exact.y, case.y_scale, offset)
    assert_nearest(actual.dx, exact.dx, case.dx_scale, offset)
    for name, worst_offset in (("dgamma", offset.max()), ("dbeta", 0)):
        one, other = getattr(actual, name), getattr(exact, name)
        assert (one is None) == (other is None), name
        if other is not None:
            assert_nearest(one, other, case.terms(other), worst_offset)


def make_norm_case(rng, name, dtype=np.float32, **options):
    """The case of SHAPES[name], with every parameter, normally distributed."""
    return build_norm_case(rng, *SHAPES[name], dtype=dtype, **options)


def build_norm_case(
    rng, norm, shape, options, mask_shape=None, *, dtype, mean=0.0, std=1.0, eps=1e-5
):
    norm = NORMS[norm]
    where = None if mask_shape is None else draw_mask(rng, mask_shape, options.get("axis"))
    size = parameter_shape(norm, shape, **options)
    parameters = {name: rng.normal(size=size).astype(dtype) for name in norm.parameters}
    return NormCase(
        norm=norm,
        x=hide(rng.normal(mean, std, shape).astype(dtype), where),
        dy=hide(rng.normal(size=shape).astype(dtype), where),
        gamma=parameters.get("gamma"),
        beta=parameters.get("beta"),
        options=options,
        where=where,
        eps=eps,
    )


def parameter_shape(norm, shape, axis=None, num_groups=None):
    """The shape of gamma and beta."""
    axis = norm.axis if axis is None else axis
    axes = axis if isinstance(axis, tuple) else (axis,)
    rows = shape[:1] if norm.per_sample else ()
    return (*rows, *(shape[position] for position in axes))


def draw_mask(rng, shape, axis=1):
    """Select about half of the places, and two or more for each statistic: the last ones."""
    where = rng.random(shape) < 0.5
    along = 0 if isinstance(axis, tuple) else np.argmax(shape)
    np.moveaxis(where, along, 0)[-2:] = True
    return where


def hide(array, where):
    """Put NaN in the places that `where` does not select."""
    if where is not None:
        array[~np.broadcast_to(where, array.shape)] = np.nan
    return array


@st.composite
def norm_cases(draw):
    """Every norm, at any rank, axis and group count, with any choice of parameters."""
    name = draw(st.sampled_from([*NORMS, "masked"]))
    norm = NORMS["batch" if name == "masked" else name]
    shape, options = draw(_shapes_and_options(name))
    view = norm.view(shape, **options)
    assume(math.prod(view.shape[position] for position in view.over) > 1)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(DTYPES))
    where = None
    if name == "masked":
        where = draw_mask(rng, draw(_mask_shapes(shape, options["axis"])))
    size = parameter_shape(norm, shape, **options)
    parameters = {
        parameter: rng.normal(size=size).astype(draw(st.sampled_from(DTYPES)))
        for parameter in draw(st.sampled_from([norm.parameters, norm.parameters[:1], ()]))
    }
    mean, std = draw(st.sampled_from([(0.0, 1.0), (-3.0, 0.1), (100.0, 50.0)]))
    return NormCase(
        norm=norm,
        x=hide(rng.normal(mean, std, shape).astype(dtype), where),
        dy=hide(rng.normal(size=shape).astype(dtype), where),
        gamma=parameters.get("gamma"),
        beta=parameters.get("beta"),
        options=options,
        where=where,
        eps=draw(st.sampled_from([1e-5, 1e-3, 0.5])),
    )


@st.composite
def _shapes_and_options(draw, name):
    shape = draw(shapes(3 if "instance" in name else 2))
    if name in ("layer", "RMS"):
        trailing = draw(st.integers(1, len(shape)))
        return shape, {"axis": draw(st.sampled_from([-1, tuple(range(-trailing, 0))]))}
    if name == "batch":
        first = draw(st.integers(0, len(shape) - 1))
        return shape, {"axis": tuple(range(first, draw(st.integers(first + 1, len(shape)))))}
    samples_first = name not in ("weight", "masked")
    axis = draw(st.integers(1 if samples_first else 0, len(shape) - 1))
    options = {"axis": axis - draw(st.sampled_from([0, len(shape)]))}
    if name == "group":
        options["num_groups"] = draw(st.integers(1, 4))
        shape = (*shape[:axis], shape[axis] * options["num_groups"], *shape[axis + 1 :])
    return shape, options


@st.composite
def _mask_shapes(draw, shape, axis):
    lengths = [draw(st.sampled_from([1, length])) for length in shape]
    lengths[axis] = 1
    return tuple(lengths)
