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
from norms import SHAPES as NORM_SHAPES
from norms import build_norm_case, run_cybn

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
LARGE_NORM_SHAPES = {
    "large layer": ("layer", (4099, 300), {}),
    "large layer, short rows": ("layer", (200_003, 5), {}),
    "large layer, long rows": ("layer", (3, 400_009), {}),
    "large RMS": ("RMS", (4099, 300), {}),
    "large instance NCHW": ("instance", (8, 129, 32, 32), {}),
    "large instance NHWC": ("instance", (8, 32, 32, 129), {"axis": -1}),
    "large group NCHW": ("group", (8, 128, 32, 33), {"num_groups": 32}),
    "large group NHWC": ("group", (8, 32, 33, 128), {"num_groups": 32, "axis": -1}),
    "large weight": ("weight", (129, 70, 11, 11), {}),
    "large conditional NCHW": ("conditional batch", (8, 129, 32, 32), {}),
    "large conditional NHWC": ("conditional batch", (8, 32, 32, 129), {"axis": -1}),
    "large adaptive instance": ("adaptive instance", (2, 3, 400, 501), {}),
    "large, two axes": ("batch", (130, 70, 129), {"axis": (1, 2)}),
    "large masked N, C": ("batch", (4099, 300), {}, (4099, 1)),
    "large masked NCHW": ("batch", (8, 129, 32, 32), {}, (8, 1, 32, 32)),
    "large masked NHWC": ("batch", (8, 32, 32, 129), {"axis": -1}, (8, 32, 32, 1)),
    "large masked, two axes": ("batch", (130, 70, 129), {"axis": (1, 2)}, (130, 70, 1)),
}


def digest(*arrays):
    sha = hashlib.sha256()
    for array in arrays:
        if array is not None:
            sha.update(array)
    return sha.hexdigest()


def digest_of_batch_norm(case):
    """Hash what one case gives in training and in inference, and its moments."""
    results = []
    for training in (True, False):
        running = case.running_mean.copy(), case.running_var.copy()
        options = case.options | {"training": training}
        y, cache = cybn.forward(case.x, case.gamma, case.beta, *running, **options)
        gradients = cybn.backward(case.dy, cache)
        results += [y, cache.mean, cache.var, cache.invstd, *running, *gradients]
    moments = cybn.moments(case.x, case.axis)
    return digest(*results, moments.mean, moments.m2)


def digest_of_norm(case):
    return digest(*run_cybn(case))


def all_cases(rng):
    """Yield each case's name, the function that gives its digest, and the case."""
    for name, (shape, axis) in (SHAPES | LARGE_SHAPES).items():
        case = make_case(rng, shape, axis, np.float64, mean=10.0)
        for dtype in DTYPES:
            typed = replace(case, x=case.x.astype(dtype), dy=case.dy.astype(dtype))
            yield f"{name}, {np.dtype(dtype)}", digest_of_batch_norm, typed
    for name, arguments in (NORM_SHAPES | LARGE_NORM_SHAPES).items():
        for dtype in DTYPES:
            case = build_norm_case(rng, *arguments, dtype=dtype, mean=10.0)
            yield f"{name}, {np.dtype(dtype)}", digest_of_norm, case


def digests(thread_counts):
    """Map each thread count to the digests of all cases by name."""
    result = {count: {} for count in thread_counts}
    for name, digest_of, case in all_cases(np.random.default_rng(0)):
        for count in thread_counts:
            with cybn.num_threads(count):
                result[count][name] = digest_of(case)
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
