"""A loop over sizes where memory is limited: python limits.py AS|DATA|a folder of a cgroup.

A script, because the limit is one of the process. Nothing may fail or be killed for memory that is
only kept.
"""

import os
import resource
import sys
from pathlib import Path

MEBI = 1 << 20
LEFT = 300 * MEBI


def used(what):
    """Bytes of address space, of data, or of memory that belongs to no file."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    size, resident, shared, _, _, data, _ = (int(n) * resource.getpagesize() for n in pages)
    return {"AS": size, "DATA": data, "memory": resident - shared}[what]


def main(limit):
    if limit not in ("AS", "DATA"):
        Path(limit, "cgroup.procs").write_text(f"{os.getpid()}\n", encoding="ascii")

    import numpy as np

    import cybn

    cybn.set_num_threads(2)
    cybn.forward(np.ones((1 << 12, 64), np.float32))  # the threads have their stacks
    if limit in ("AS", "DATA"):
        allowed = used(limit) + LEFT, resource.RLIM_INFINITY
        resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), allowed)
    most = cybn.show_config(mode="dict")["kept_memory_limit"]
    assert 4 * MEBI <= most <= LEFT // 16, most

    # At last sizes that are kept in a cgroup of this limit.
    for size in [*range(4, 60, 8), *range(58, 4, -8), 8, 6, 4]:
        x = np.ones((size << 12, 64), np.float32)
        y, cache = cybn.forward(x)
        del x, y, cache
        assert cybn.show_config(mode="dict")["kept_memory"] <= most
    if limit in ("AS", "DATA"):
        np.empty(LEFT * 15 // 16, np.uint8)
    else:  # the system takes what is lent before it would kill
        kept = cybn.show_config(mode="dict")["kept_memory"]
        assert kept == 18 * MEBI
        np.ones(LEFT - (used("memory") - kept) - 8 * MEBI, np.uint8)
    address = None
    for _ in range(3):  # some is kept all the same
        y, _ = cybn.forward(np.ones((1 << 14, 64), np.float32))
        assert address in (None, y.ctypes.data)
        address = y.ctypes.data
        del y


if __name__ == "__main__":
    main(sys.argv[1])
