"""Print the sha256 of everything cybn computes, for each of the given thread counts.

    python bits.py 1 2 7

prints one JSON object: for each thread count the digest of every case; then, under "started", how
many more operating system threads there were at the end than at the start (None if unknown).
`CYBN_LEVEL` chooses the level, as always.
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from cases import DTYPES, SHAPES, make_case

import cybn

# Large enough that sharing the work pays, whichever way it is shared.
LARGE_SHAPES = {
    "large RGB NCHW": ((1, 3, 600, 801), 1),
    "large RGB NHWC": ((1, 600, 801, 3), -1),
    "large one channel": ((1, 1, 1_000_003), 1),
    "large one channel last": ((1_000_003, 1), 1),
    "large two channels": ((2, 2, 250_007), 1),
    "large short rows": ((33, 640, 7, 7), 1),
    "large NCHW": ((8, 129, 32, 32), 1),
    "large NHWC": ((8, 32, 32, 129), -1),
    "large N, C": ((4099, 300), 1),
    "large N, C tall": ((200_003, 5), 1),
    "large N, C wide": ((7, 100_001), 1),
    "large channel first": ((5, 300_007), 0),
    "larger than most caches": ((2, 5, 250_007), 1),
}


def digest(case):
    """Hash what one case gives in training and in inference."""
    sha = hashlib.sha256()
    for training in (True, False):
        running = case.running_mean.copy(), case.running_var.copy()
        options = case.options | {"training": training}
        y, cache = cybn.forward(case.x, case.gamma, case.beta, *running, **options)
        gradients = cybn.backward(case.dy, cache)
        for array in (y, cache.mean, cache.var, cache.invstd, *running, *gradients):
            sha.update(array)
    return sha.hexdigest()


def digests(thread_counts):
    """Map each thread count to the digests of all cases by name."""
    result = {count: {} for count in thread_counts}
    rng = np.random.default_rng(0)
    for name, (shape, axis) in (SHAPES | LARGE_SHAPES).items():
        case = make_case(rng, shape, axis, np.float64, mean=10.0)
        for dtype in DTYPES:
            typed = replace(case, x=case.x.astype(dtype), dy=case.dy.astype(dtype))
            for count in thread_counts:
                with cybn.num_threads(count):
                    result[count][f"{name}, {np.dtype(dtype)}"] = digest(typed)
    return result


def running_threads():
    """Count this process's threads, where the system tells (Linux)."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else None


def main():
    before = running_threads()
    result = digests([int(argument) for argument in sys.argv[1:]])
    started = None if before is None else running_threads() - before
    print(json.dumps({"digests": result, "started": started}))


if __name__ == "__main__":
    main()
