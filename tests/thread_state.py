"""Print the digests of a few calls as JSON, made in threads that a test has prepared.

    python thread_state.py plain|flush|small

flush: subnormal numbers are taken for 0 and become 0 in the calling thread and those that it
starts, as libraries built with -ffast-math set it. small: the calling thread's stack has 32 KiB.
"""

import ctypes
import hashlib
import json
import mmap
import sys
import threading

import numpy as np

import cybn

FLUSH = 0x8040  # of MXCSR: flush to zero, subnormals are zero
LDMXCSR = bytes([0x0F, 0xAE, 0x17, 0xC3])  # ldmxcsr [rdi]; ret
STMXCSR = bytes([0x0F, 0xAE, 0x1F, 0xC3])


def machine_code(code):
    """A C function of one pointer, from its bytes; its memory lives as long as the process."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
    function.page = page
    return function


def flush_subnormals():
    modes = ctypes.c_uint32()
    machine_code(STMXCSR)(ctypes.byref(modes))
    modes.value |= FLUSH
    machine_code(LDMXCSR)(ctypes.byref(modes))


def inputs():
    """Arrays whose values are subnormal: read, summed, mapped and stored."""
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for shape, axis in (((600, 1024), 1), ((8, 65, 40, 40), 1), ((8, 40, 40, 65), -1)):
            yield (rng.normal(size=shape) * 9 * np.finfo(dtype).tiny / 10).astype(dtype), axis


def digests(cases):
    result = {}
    for x, axis in cases:
        gamma = np.full(x.shape[axis], 0.25, x.dtype)
        running = np.zeros((2, x.shape[axis]), x.dtype)
        for threads in (1, 2, 3):
            with cybn.num_threads(threads):
                y, cache = cybn.forward(
                    x, gamma, running_mean=running[0], running_var=running[1], axis=axis, eps=1.0
                )
                dx = cybn.backward(x, cache).dx
            sha = hashlib.sha256()
            for array in (y, dx, running, cache.mean):
                sha.update(np.ascontiguousarray(array))
            result[f"{x.dtype} {x.shape} {threads}"] = sha.hexdigest()
    return result


def main(kind):
    cases = list(inputs())
    if kind == "flush":
        flush_subnormals()
        assert np.float32(1e-38) * np.float32(0.1) == 0  # it works
    found = {}
    if kind == "small":
        threading.stack_size(32 << 10)
        thread = threading.Thread(target=lambda: found.update(digests(cases)))
        thread.start()
        thread.join()
    else:
        found = digests(cases)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
