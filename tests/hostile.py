"""Hostile arrays, and what each gives as which argument.

`OUTCOMES` has a row for each way to spoil a good array and a column for each array argument: R the
right result, T a TypeError and V a ValueError that name the argument, - where it is not hostile.
"""

import tempfile
from multiprocessing import shared_memory

import numpy as np

ARGUMENTS = ("x", "dy", "gamma", "beta", "running_mean", "running_var", "out", "dx")

OUTCOMES = """
                          x dy   gamma beta   running_mean running_var   out dx
None                      T T    - -          - -                        - -
complex numbers           T T    T T          T T                        T T
objects                   T T    T T          T T                        T T
text                      T T    T T          T T                        T T
dates                     T T    T T          T T                        T T
records                   T T    T T          T T                        T T
bfloat16 from a file      T T    T T          T T                        T T
longdouble                T T    T T          T T                        T T
integers                  R R    R R          T T                        T T
bool                      R R    R R          T T                        T T
the other float           R R    R R          R R                        T T
a list                    R R    R R          T T                        T T
a memoryview              R R    R R          T T                        T T
an array interface        R R    R R          T T                        T T
a masked array            T T    T T          T T                        T T
a number                  V V    V V          T T                        T T
a word                    T T    T T          T T                        T T
a dict                    T T    T T          T T                        T T
a ragged list             V V    V V          T T                        T T
no dimensions             V V    V V          V V                        V V
one value less            - V    V V          V V                        V V
one axis more             - V    V V          V V                        V V
no values                 - V    V V          V V                        V V
Fortran order             R R    - -          - -                        V V
every third value         R R    R R          R R                        V V
reversed                  R R    R R          R R                        V V
huge strides              R R    R R          R R                        V V
a value repeated          R R    R R          V V                        V V
read-only                 R R    R R          V V                        V V
byte-swapped              R R    R R          R R                        T T
unaligned                 R R    R R          R R                        V V
a subclass                R R    R R          R R                        R R
a lying subclass          - V    V V          V V                        V V
memory-mapped             R R    R R          R R                        R R
memory-mapped, read-only  R R    R R          V V                        V V
shared memory             R R    R R          R R                        R R
NaN                       R R    R R          R R                        - -
infinity                  R R    R R          R R                        - -
subnormal                 R R    R R          R R                        - -
the largest float         R R    R R          R R                        - -
minus zero                R R    R R          R R                        - -
"""


class Subclass(np.ndarray):
    """Does other than an array, where it can."""

    def __array_ufunc__(self, *_, **__):
        return NotImplemented

    def __array_function__(self, *_, **__):
        return NotImplemented

    def __getitem__(self, key):
        raise AssertionError("cybn reads memory, not items")


class Liar(np.ndarray):
    """Has fewer values than it says."""

    shape = property(lambda self: (4, 3, 5) if self.size == 60 else (3,))


class ArrayInterface:
    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


def _dtype(dtype):
    return lambda array: array.astype(dtype)


def _filled(value):
    """The array, with this as one of its values."""

    def fill(array):
        array = array.copy()
        array.flat[1] = value
        return array

    return fill


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def _unaligned(array):
    buffer = bytearray(array.nbytes + 1)
    return _copied(array, np.frombuffer(buffer, array.dtype, array.size, 1).reshape(array.shape))


def _huge_strides(array):
    """Neighbours lie 16 MiB apart, in memory that is reserved but not touched in between."""
    step = (1 << 24) // array.itemsize
    return _copied(array, np.zeros(array.size * step, array.dtype)[::step].reshape(array.shape))


def _memory_mapped(array):
    with tempfile.TemporaryFile() as file:
        return _copied(array, np.memmap(file, array.dtype, "w+", shape=array.shape))


def _memory_mapped_read_only(array):
    with tempfile.NamedTemporaryFile() as file:
        file.write(array.tobytes())
        file.flush()
        return np.memmap(file, array.dtype, "r", shape=array.shape)


def _shared(array):
    memory = shared_memory.SharedMemory(create=True, size=array.nbytes)
    result = np.ndarray(array.shape, array.dtype, memory.buf)
    memory.unlink()
    SHARED.append(memory)
    return _copied(array, result)


def _copied(values, array):
    array[...] = values
    return array


SHARED = []  # must outlive the arrays in it

SPOIL = {
    "None": lambda array: None,
    "complex numbers": _dtype(complex),
    "objects": _dtype(object),
    "text": _dtype(str),
    "dates": lambda array: np.zeros(array.shape, "datetime64[s]"),
    "records": lambda array: np.zeros(array.shape, [("a", "f4"), ("b", "f4")]),
    "bfloat16 from a file": lambda array: array.astype(np.float16).view("V2"),  # by np.save
    "longdouble": _dtype(np.longdouble),
    "integers": _dtype(np.int64),
    "bool": _dtype(bool),
    "the other float": _dtype(np.float64),
    "a list": np.ndarray.tolist,
    "a memoryview": memoryview,
    "an array interface": ArrayInterface,
    "a masked array": np.ma.masked_array,
    "a number": lambda array: 1.0,
    "a word": lambda array: "word",
    "a dict": lambda array: {"values": array},
    "a ragged list": lambda array: [[1.0], [1.0, 2.0], [1.0]],
    "no dimensions": lambda array: array.reshape(-1)[0, ...].copy(),
    "one value less": lambda array: array[..., 1:].copy(),
    "one axis more": lambda array: array[..., np.newaxis],
    "no values": lambda array: array[..., :0],
    "Fortran order": np.asfortranarray,
    "every third value": lambda array: np.repeat(array, 3, axis=-1)[..., ::3],
    "reversed": lambda array: np.flip(np.flip(array).copy()),
    "huge strides": _huge_strides,
    "a value repeated": lambda array: np.broadcast_to(array.reshape(-1)[0], array.shape),
    "read-only": _read_only,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "unaligned": _unaligned,
    "a subclass": lambda array: array.copy().view(Subclass),
    "a lying subclass": lambda array: array.reshape(-1)[:1].copy().view(Liar),
    "memory-mapped": _memory_mapped,
    "memory-mapped, read-only": _memory_mapped_read_only,
    "shared memory": _shared,
    "NaN": _filled(np.nan),
    "infinity": _filled(-np.inf),
    "subnormal": _filled(1e-45),
    "the largest float": _filled(np.finfo(np.float32).max),
    "minus zero": _filled(-0.0),
}


def table():
    """Yield (how, argument, outcome) for all that is hostile."""
    for line in OUTCOMES.splitlines()[2:]:
        how, outcomes = line[:24].strip(), line[24:].split()
        for argument, outcome in zip(ARGUMENTS, outcomes, strict=True):
            if outcome != "-":
                yield how, argument, outcome
