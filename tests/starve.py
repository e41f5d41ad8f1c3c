"""Call cybn where there is no memory for a result, and check what is left afterwards.

A script, because the limit is one of the process.
"""

import resource
import sys
from pathlib import Path

import numpy as np

import cybn

SHAPE, MEBI = (1 << 23, 8), 1 << 20  # 256 MiB of float32
TIMES = 100


def address_space():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def must_fail(function, *arguments):
    try:
        function(*arguments)
    except MemoryError:
        return
    raise AssertionError(f"{function.__name__}: expected a MemoryError")


def forward(x, running_mean, running_var):
    return cybn.forward(x, running_mean=running_mean, running_var=running_var)


def main():
    cybn.set_num_threads(2)
    x, out = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    integers = np.ones(SHAPE, np.int16)
    running_mean, running_var = np.zeros(8), np.ones(8)
    layer = cybn.BatchNorm(8)
    cache = cybn.forward(x, out=out)[1]
    layer(x, out=out)
    before = {key: value.copy() for key, value in layer.state_dict().items()}
    references = sys.getrefcount(x), sys.getrefcount(out), sys.getrefcount(running_mean)
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + 64 * MEBI, resource.RLIM_INFINITY))

    def fail():
        must_fail(forward, x, running_mean, running_var)
        must_fail(forward, integers, running_mean, running_var)
        must_fail(forward, x.T, None, None)
        must_fail(cybn.backward, out, cache)
        must_fail(layer, x)
        must_fail(layer.backward, out)

    fail()
    size = address_space()
    for _ in range(TIMES):
        fail()

    assert address_space() == size
    assert references == (sys.getrefcount(x), sys.getrefcount(out), sys.getrefcount(running_mean))
    assert not running_mean.any()
    assert (running_var == 1).all()
    for key, value in layer.state_dict().items():
        assert (value == before[key]).all(), key
    assert not cybn.backward(x, cache, out=out).dx.any()  # with memory all goes on


if __name__ == "__main__":
    main()
