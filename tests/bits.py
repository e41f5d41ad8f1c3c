"""Digests of everything cybn computes: those of this machine, and those of every machine.

    python bits.py --check      # against digests.json: are these the bits of every other machine?
    python bits.py --write      # make that file anew, when results were meant to change
    python bits.py 1 2 7

The last one prints one JSON object: the digest of the inputs; for each thread count that of every
case's results; and under "started" how many more operating system threads there were at the end
than at the start (None if unknown). `CYBN_LEVEL` chooses the level, as always.
"""

import hashlib
import json
import sys
from dataclasses import fields, replace
from itertools import chain, product
from pathlib import Path

import numpy as np
from cases import DTYPES, SHAPES, make_case, tracked
from halves import BFLOAT16, HALVES, nearest
from norms import SHAPES as NORM_SHAPES
from norms import build_norm_case, run_cybn
from reference_fused import ACTIVATIONS

import cybn

GOLDEN = Path(__file__).with_name("digests.json")

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
# Whose first value lies far off, so that sums are made once more: part by part, or by all threads.
OUTLIER = 1e4
OUTLIER_SHAPES = ("N, C", "NCHW", "long rows", "large NCHW", "large NHWC", "large N, C")
OUTLIER_NORM_SHAPES = (
    *("layer, sequences", "group NCHW", "conditional NHWC", "large layer", "large group NHWC"),
    *("large conditional NHWC", "large masked N, C"),
)
FUSED_SHAPES = (
    *("N, C", "NCHW", "NHWC", "channel inside", "long rows"),
    *("large NCHW", "large NHWC", "large N, C"),
)


class Draws(np.random.Generator):
    """Random numbers that are the same everywhere.

    NumPy's own normal ones take their tails from the C library's logarithm, and two libraries may
    differ in the last bit. These are sums of four uniform numbers, of variance 1.
    """

    def normal(self, mean=0.0, std=1.0, size=None):
        uniform = self.random((4, *np.atleast_1d(size)))
        return mean + std * (3**0.5 * (uniform[0] + uniform[1] + uniform[2] + uniform[3] - 2.0))

    def uniform(self, low, high, size):
        return low + (high - low) * self.random(size)


def digest(*arrays):
    """Hash results. There must be no NaN among them: its bits are not promised."""
    sha = hashlib.sha256()
    for array in arrays:
        if array is not None:
            with np.errstate(all="ignore"):  # ml_dtypes warns of infinity
                assert not np.isnan(array.astype(np.float64)).any()
            array = array.view(np.uint16) if array.dtype == BFLOAT16 else array  # it has no buffer
            sha.update(array)
    return sha.hexdigest()[:16]


def digest_of_batch_norm(case):
    """Hash what one case gives in training and in inference, and its moments."""
    results = []
    for training in (True, False):
        running = case.running_mean.copy(), case.running_var.copy()
        options = case.options | {"training": training}
        y, cache = cybn.forward(case.x, case.gamma, case.beta, **tracked(running), **options)
        gradients = cybn.backward(case.dy, cache)
        results += [y, cache.mean, cache.var, cache.invstd, *running, *gradients]
    moments = cybn.moments(case.x, case.axis)
    return digest(*results, moments.mean, moments.m2)


def digest_of_fused(activation, kind):
    """Return as `digest_of_batch_norm` what digests a fused call; `kind` is the residual's dtype.

    The third time every third sample is left out.
    """

    def digest_of(case):
        residual = None
        if kind is not None:  # other values than x's, of the same draw
            residual = case.dy[..., ::-1].astype(kind)
        results = []
        for training, masked in ((True, False), (False, False), (True, True)):
            where = np.arange(case.x.shape[0]).reshape(-1, *[1] * (case.x.ndim - 1)) % 3 < 2
            running = case.running_mean.copy(), case.running_var.copy()
            y, cache = cybn.batch_norm(
                case.x,
                3 * case.gamma,
                case.beta,
                activation=activation,
                residual=residual,
                where=where if masked and len(where) > 2 else None,
                **tracked(running),
                **(case.options | {"training": training}),
            )
            gradients = cybn.backward(case.dy, cache)
            results += [y, *gradients, gradients.dresidual]
        return digest(*results)

    return digest_of


def digest_of_norm(case):
    return digest(*run_cybn(case))


def far_off(case):
    """The same case with another first value."""
    x = case.x.copy()
    x.flat[np.flatnonzero(~np.isnan(x))[0]] = OUTLIER
    return replace(case, x=x)


def all_cases(rng):
    """Yield each case's name, the function that gives its digest, and the case."""
    for name, (shape, axis) in (SHAPES | LARGE_SHAPES).items():
        case = make_case(rng, shape, axis, np.float64, mean=10.0)
        for dtype in DTYPES:
            typed = replace(case, x=case.x.astype(dtype), dy=case.dy.astype(dtype))
            yield f"{name}, {np.dtype(dtype)}", digest_of_batch_norm, typed
            if name in OUTLIER_SHAPES:
                yield f"{name}, {np.dtype(dtype)}, outlier", digest_of_batch_norm, far_off(typed)
    for name, arguments in (NORM_SHAPES | LARGE_NORM_SHAPES).items():
        for dtype in DTYPES:
            case = build_norm_case(rng, *arguments, dtype=dtype, mean=10.0)
            yield f"{name}, {np.dtype(dtype)}", digest_of_norm, case
            if name in OUTLIER_NORM_SHAPES:
                yield f"{name}, {np.dtype(dtype)}, outlier", digest_of_norm, far_off(case)


def half_cases(rng):
    """Yield as `all_cases` cases of 16 bit, drawn apart so that those stay as they are.

    Half of them have parameters of 16 bit, too.
    """
    for name, (shape, axis) in (SHAPES | LARGE_SHAPES).items():
        case = make_case(rng, shape, axis, np.float64, mean=10.0)
        for dtype in HALVES.values():
            typed = replace(case, x=nearest(case.x, dtype), dy=nearest(case.dy, dtype))
            if shape[0] % 2:
                names = "gamma", "beta", "running_mean", "running_var"
                typed = replace(typed, **{n: nearest(getattr(typed, n), dtype) for n in names})
            yield f"{name}, {dtype}", digest_of_batch_norm, typed
    for name, arguments in (NORM_SHAPES | LARGE_NORM_SHAPES).items():
        for dtype in HALVES.values():
            case = build_norm_case(rng, *arguments, dtype=np.float64, mean=10.0)
            typed = replace(case, x=nearest(case.x, dtype), dy=nearest(case.dy, dtype))
            yield f"{name}, {dtype}", digest_of_norm, typed


def fused_cases(rng):
    """Yield as `all_cases` each activation, without and with a residual, drawn apart again."""
    for name in FUSED_SHAPES:
        shape, axis = (SHAPES | LARGE_SHAPES)[name]
        case = make_case(rng, shape, axis, np.float64)
        for dtype in (*DTYPES, *HALVES.values()):
            rounded = nearest if dtype in HALVES.values() else np.ndarray.astype
            typed = replace(case, x=rounded(case.x, dtype), dy=rounded(case.dy, dtype))
            kinds = [None, dtype] if dtype in DTYPES else [None, dtype, np.float32]
            some = product(ACTIVATIONS, kinds)
            if name in LARGE_SHAPES:  # these take long
                some = product(("relu", "silu"), [dtype])
            for activation, kind in some:
                label = "no" if kind is None else np.dtype(kind)
                of = f"{activation}, {label} residual"
                if kind is not None or activation is not None:
                    yield (
                        f"{name}, {np.dtype(dtype)}, {of}",
                        digest_of_fused(activation, kind),
                        typed,
                    )


def digests(thread_counts):
    """Return the digest of all inputs, and for each thread count those of all cases by name."""
    inputs = hashlib.sha256()
    results = {count: {} for count in thread_counts}
    kinds_of_cases = (all_cases, 0), (half_cases, 16), (fused_cases, 2)
    cases = chain(*(each(Draws(np.random.PCG64(seed))) for each, seed in kinds_of_cases))
    for name, digest_of, case in cases:
        for field in fields(case):
            value = getattr(case, field.name)
            if isinstance(value, np.ndarray):
                inputs.update(value.view(np.uint8) if value.ndim else value)
        for count in thread_counts:
            with cybn.num_threads(count):
                results[count][name] = digest_of(case)
    return inputs.hexdigest()[:16], results


def differing_from_golden(inputs, results):
    """Name what is not as in the file: the cases, or only the inputs."""
    golden = json.loads(GOLDEN.read_text())
    if inputs != golden["inputs"]:
        return ["the inputs: a case was changed, or NumPy draws other numbers here"]
    names = golden["results"].keys() | results.keys()
    return sorted(name for name in names if results.get(name) != golden["results"].get(name))


def running_threads():
    """Count this process's threads, where the system tells (Linux)."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else None


def write():
    inputs, results = digests([1])
    GOLDEN.write_text(json.dumps({"inputs": inputs, "results": results[1]}, indent=0) + "\n")


def check():
    inputs, results = digests([1, 2])
    differing = {name for each in results.values() for name in differing_from_golden(inputs, each)}
    if differing:
        sys.exit("\n".join(["Not as in digests.json:", *sorted(differing)]))
    print(f"The same bits as in digests.json: {len(results[1])} cases, 1 and 2 threads.")


def report(thread_counts):
    before = running_threads()
    inputs, results = digests(thread_counts)
    started = None if before is None else running_threads() - before
    print(json.dumps({"inputs": inputs, "digests": results, "started": started}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--write"]:
            write()
        case ["--check"]:
            check()
        case counts:
            report([int(count) for count in counts])
