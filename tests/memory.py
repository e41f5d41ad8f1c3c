"""Arrays in memory that plays tricks: pages that repeat, pages that must not be touched (Linux)."""

import ctypes
import math
import mmap
import os
import weakref

import numpy as np

PAGE = mmap.PAGESIZE
NOTHING, READ, WRITE = 0, 1, 2  # PROT_NONE, PROT_READ, PROT_WRITE
MAP_FIXED = 0x10
FAILED = ctypes.c_void_p(-1).value

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


def _map(address, nbytes, protection, flags, file=-1):
    mapped = libc.mmap(address, nbytes, protection, flags, file, 0)
    if mapped == FAILED:
        raise OSError(ctypes.get_errno(), "mmap failed")
    return mapped


def _reserve(nbytes):
    """An address range of which no byte can be read or written."""
    return _map(None, nbytes, NOTHING, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _array_at(address, shape, dtype, mapped):
    """An array, with which the range (start, bytes) that was mapped for it goes."""
    buffer = (ctypes.c_char * nbytes_of(shape, dtype)).from_address(address)
    weakref.finalize(buffer, libc.munmap, *mapped).atexit = False
    return np.frombuffer(buffer, dtype).reshape(shape)


def nbytes_of(shape, dtype):
    return math.prod(shape) * dtype.itemsize


def repeating(block, shape):
    """An array of this shape whose values are those of `block`, again and again.

    It takes the memory of one block, a whole number of pages; a value that is written is seen in
    every repetition.
    """
    times = -(-nbytes_of(shape, block.dtype) // block.nbytes)
    file = os.memfd_create("block")
    os.write(file, block)
    start = _reserve(times * block.nbytes)
    for i in range(times):
        address = start + i * block.nbytes
        _map(address, block.nbytes, READ | WRITE, mmap.MAP_SHARED | MAP_FIXED, file)
    os.close(file)
    return _array_at(start, shape, block.dtype, (start, times * block.nbytes))


def guarded(array, before):
    """A copy that lies just before, or just behind, a page that must not be touched."""
    pages = -(-array.nbytes // PAGE) * PAGE
    reserved = _reserve(pages + 2 * PAGE)
    start = reserved + PAGE
    _map(start, pages, READ | WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED)
    address = start + pages - array.nbytes if before else start
    copy = _array_at(address, array.shape, array.dtype, (reserved, pages + 2 * PAGE))
    copy[...] = array
    return copy
