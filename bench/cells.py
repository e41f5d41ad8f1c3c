"""The table of cells: which shapes are measured, and the values that fill them."""

from dataclasses import dataclass, fields, replace
from math import ceil, prod, sqrt

import numpy as np

EPS = 1e-5
MOMENTUM = 0.1

_ALIGNMENT = 64
_PERIOD = 1_000_003  # values are repeated beyond this prime: drawing them all is slow

_MATRICES = ((32, 64), (128, 300), (256, 784), (4096, 1024))
_IMAGES = (
    (8, 64, 32, 32),
    (32, 64, 112, 112),
    (32, 256, 56, 56),
    (32, 512, 28, 28),
    (32, 2048, 7, 7),
    (16, 96, 80, 80),
    (1, 3, 1080, 1920),
)
GROUPS = 32
_NORMS = (  # the features of layer norm are the channels, and last
    ("layer", "NC", (4096, 1024)),
    ("layer", "NHWC", (32, 768, 197)),
    ("group", "NCHW", (32, 256, 56, 56)),
    ("instance", "NCHW", (8, 64, 128, 128)),
)
LAYOUTS = ("NC", "NCHW", "NHWC")
_SWEEP_SIZES = tuple(k * 10**e for e in range(3, 9) for k in (1, 3))


@dataclass(frozen=True)
class Cell:
    """A layer's shape in one layout: `logical` has the channels second whatever the layout."""

    layout: str
    logical: tuple[int, ...]
    norm: str = "batch"

    @property
    def name(self):
        if self.norm == "batch":
            return f"{self.layout} {'x'.join(map(str, self.logical))}"
        return f"{self.norm} {'x'.join(map(str, self.shape))}"

    @property
    def shape(self):
        """Shape of the array in memory."""
        if self.layout != "NHWC":
            return self.logical
        batch, channels, *spatial = self.logical
        return (batch, *spatial, channels)

    @property
    def axis(self):
        """Channel axis of the array in memory."""
        return -1 if self.layout == "NHWC" else 1

    @property
    def size(self):
        return prod(self.logical)

    @property
    def channels(self):
        return self.logical[1]

    @property
    def statistics(self):
        """How many means there are, of a norm by the sample."""
        if self.norm == "layer":
            return self.size // self.channels
        return self.logical[0] * (GROUPS if self.norm == "group" else self.channels)

    def nbytes(self, dtype):
        return self.size * np.dtype(dtype).itemsize

    def channels_second(self, array):
        """View of an array in this cell's layout as (N, C, ...)."""
        return np.moveaxis(array, self.axis, 1)

    def from_channels_second(self, array):
        """View of an (N, C, ...) array in this cell's layout."""
        return np.moveaxis(array, 1, self.axis)


@dataclass(frozen=True)
class Problem:
    """A cell filled with values: what every system is given."""

    cell: Cell
    x: np.ndarray
    dy: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray

    def buffer(self):
        """Array like `x` to write a result to, aligned to a cache line."""
        raw = np.empty(self.x.nbytes + _ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % _ALIGNMENT
        return raw[start : start + self.x.nbytes].view(self.x.dtype).reshape(self.x.shape)

    def copy(self):
        """The same values in memory of their own."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "cell"}
        return replace(self, **{name: array.copy() for name, array in arrays.items()})

    def running(self):
        """Copies of the running statistics, for a call that updates them."""
        return self.running_mean.copy(), self.running_var.copy()


def draw(cell, dtype):
    """Fill `cell` with normal values, the same in every process."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(0)

    def normal(shape):
        values = rng.standard_normal(min(prod(shape), _PERIOD), dtype)
        return np.resize(values, shape)

    channels = (cell.channels,)
    return Problem(
        cell=cell,
        x=normal(cell.shape),
        dy=normal(cell.shape),
        gamma=normal(channels),
        beta=normal(channels),
        running_mean=normal(channels),
        running_var=rng.random(channels, dtype=dtype) + 0.5,
    )


def sweep(layout):
    """Cells of one shape family from 1e3 to 3e8 elements, rounded up."""
    if layout == "NC":
        return tuple(Cell(layout, (ceil(size / 64), 64)) for size in _SWEEP_SIZES)
    sides = (ceil(sqrt(size / 128)) for size in _SWEEP_SIZES)
    return tuple(Cell(layout, (8, 16, side, side)) for side in sides)


CELLS = tuple(
    Cell(layout, shape)
    for layout in LAYOUTS
    for shape in (_MATRICES if layout == "NC" else _IMAGES)
)
NORM_CELLS = tuple(Cell(layout, shape, norm) for norm, layout, shape in _NORMS)
