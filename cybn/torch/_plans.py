"""What calls of a norm with tensors of one shape and memory format have in common."""

import math
from functools import lru_cache
from typing import NamedTuple

from .. import _geometry
from .._geometry import Geometry
from .._normalize import kernels
from .._settings import settings_of


class Settings(NamedTuple):
    """Which norm, and how: of plain values, as operators take them."""

    norm: str  # "batch", "instance", "group", "layer" or "rms"
    number: int  # of groups; of trailing dimensions in layer and RMS norm; or else 0
    training: bool  # statistics of the input, and not the running ones
    momentum: float
    eps: float
    activation: str | None = None
    slope: float = 0.0  # of the activation below 0, if it has one

    def core_activation(self):
        """Return the activation as cybn takes it."""
        name = self.activation
        return (name, self.slope) if name == "leaky_relu" else name

    def for_kernels(self):
        """Return them as the kernels take them."""
        centered, activation = self.norm != "rms", self.core_activation()
        return settings_of(self.training, self.momentum, self.eps, centered, activation)

    def keeps_result(self):
        """Whether with a residual the result is needed for the gradients, and not the residual."""
        return self.for_kernels().by_result


class Plan(NamedTuple):
    """How cybn computes a norm of such tensors."""

    settings: Settings
    kernel_settings: kernels.Settings
    geometry: Geometry  # of the array in C order
    shape: tuple[int, ...]  # of the tensor
    parameters: tuple[int, ...]  # shape of weight and bias
    parameter_size: int
    copied: bool  # the tensor has no order that cybn can read
    to_last: tuple[int, ...] | None  # the axes of a channels last tensor in C order
    strides: tuple[int, ...] | None  # of the results; None in C order


@lru_cache(maxsize=1024)
def plan_of(shape, strides, settings):
    """Return the Plan of a norm of tensors like this, or None if the norm is PyTorch's."""
    return make_plan(shape, strides, Settings(*settings)) if is_taken(shape, *settings) else None


def make_plan(shape, strides, settings):
    """Return the Plan of a norm of tensors like this, which cybn has."""
    usual = tuple(range(len(shape)))
    last = (0, *usual[2:], 1)
    copied, to_last, order = False, None, usual
    if not _is_dense(shape, strides, usual):
        if len(shape) > 2 and by_channel(settings.norm) and _is_dense(shape, strides, last):
            to_last = order = last
        else:
            copied = True
    geometry = _find_geometry([shape[i] for i in order], 1 if to_last is None else -1, settings)
    return Plan(
        settings,
        settings.for_kernels(),
        geometry,
        tuple(shape),
        geometry.parameters,
        math.prod(geometry.parameters),
        copied,
        to_last,
        None if copied or strides == _dense_strides(shape) else strides,
    )


def is_taken(shape, norm, number, training, momentum, eps, activation, slope):
    """Whether cybn has such a norm of a tensor of this shape; all other ones are PyTorch's."""
    size = math.prod(shape)
    if not (size and 0 < eps < math.inf and 0 <= momentum <= 1 and 0 <= slope < math.inf):
        return False
    if norm == "batch":
        return len(shape) >= 2 and (not training or size > shape[1])
    if norm == "instance":
        return len(shape) >= 3 and math.prod(shape[2:]) > 1
    if norm == "group":
        divides = len(shape) >= 2 and number > 0 and shape[1] % number == 0
        return divides and size > shape[0] * number
    return 0 < number <= len(shape)


def by_channel(norm):
    """Whether a norm's parameters belong to channels, and not to the values of a row."""
    return norm not in ("layer", "rms")


def parameters_of(shape, norm, number):
    """Return the shape of weight and bias."""
    return shape[1:2] if by_channel(norm) else shape[len(shape) - number :]


def _find_geometry(lengths, axis, settings):
    shape = tuple(lengths)
    if settings.norm == "batch":
        return _geometry.batch_geometry(shape, axis)
    if settings.norm == "instance":
        return _geometry.sample_geometry(shape, axis)
    if settings.norm == "group":
        return _geometry.sample_geometry(shape, axis, settings.number)
    return _geometry.trailing_geometry(shape, tuple(range(-settings.number, 0)))


def _dense_strides(shape):
    return tuple(math.prod(shape[i:]) for i in range(1, len(shape) + 1))


def _is_dense(shape, strides, order):
    """Whether a tensor's axes in this order are in C order, wherever there is more than a value."""
    lengths = [shape[i] for i in order]
    return all(
        length == 1 or strides[i] == stride
        for i, length, stride in zip(order, lengths, _dense_strides(lengths), strict=True)
    )
