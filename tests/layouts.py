"""Memory layouts that an array may come in."""

import numpy as np
import pytest


def unaligned(array):
    buffer = bytearray(array.nbytes + 1)
    result = np.frombuffer(buffer, array.dtype, array.size, offset=1).reshape(array.shape)
    result[...] = array
    assert not result.flags.aligned or array.itemsize == 1
    return result


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


# Each gives the same values in another memory layout.
LAYOUTS = {
    "Fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "sliced, last axis": lambda a: np.repeat(a, 3, axis=-1)[..., ::3],
    "sliced, first axis": lambda a: np.repeat(a, 2, axis=0)[::2],
    "part of a larger array": lambda a: np.pad(a, 2)[(slice(2, -2),) * a.ndim],
    "negative stride, last axis": lambda a: a[..., ::-1].copy()[..., ::-1],
    "negative stride, first axis": lambda a: a[::-1].copy()[::-1],
    "negative strides": lambda a: np.flip(np.flip(a).copy()),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "byte-swapped, Fortran": lambda a: np.asfortranarray(a.astype(a.dtype.newbyteorder())),
    "unaligned": unaligned,
    "unaligned, byte-swapped": lambda a: unaligned(a.astype(a.dtype.newbyteorder())),
    "read-only": read_only,
    "column of records": lambda a: np.rec.fromarrays([a, a]).f1,
    "subclass": lambda a: np.asarray(a).view(np.memmap),
}
all_layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
