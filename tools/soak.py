"""Call cybn for a while in ways that are drawn, and check everything: results, bits, memory.

    tools/fresh python tools/soak.py --minutes 10

Each level has a process that draws norms, shapes, layouts, dtypes, modes, masks and thread counts,
calls from one or several Python threads, and forks now and then. It stops at the first wrong value,
and fails if the resident memory of the second half of the time differs by more than 1 % from that
of the first.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

import norms  # noqa: E402
import reference  # noqa: E402

import cybn  # noqa: E402

MOST_VALUES = 1 << 19
EVERY, CALLERS = 20, 4  # calls between forks, Python threads
MEMORY_SLACK = 0.01


def draw_shape(rng, least_rank=1):
    rank = rng.randint(least_rank, 4)
    shape = [rng.choice([1, 2, 3, 5, 8, 17, 33, 64, 129, 513, 1025]) for _ in range(rank)]
    while np.prod(shape) > MOST_VALUES:
        shape[rng.randrange(len(shape))] = 2
    return shape


def draw_batch_norm(seed):
    """The arguments of a call of batch norm; the same for the same seed."""
    rng = random.Random(seed)
    shape = draw_shape(rng)
    axis = rng.randrange(len(shape))
    values = np.random.default_rng(seed)
    several = np.prod(shape) > shape[axis]
    options = {"axis": axis, "training": several and rng.random() < 0.7}
    x, dy = values.normal(rng.choice([0, 1000]), 2, (2, *shape)).astype(rng.choice(["f4", "f8"]))
    if rng.random() < 0.2:
        x = np.asfortranarray(x)
    parameters = values.uniform(0.5, 2, (4, shape[axis]))
    return x, dy, parameters, options, rng.randint(1, 4)


def call_batch_norm(seed):
    """Return the results of a call, and what they should be."""
    x, dy, (gamma, beta, mean, var), options, threads = draw_batch_norm(seed)
    expected = reference.forward(x, gamma, beta, mean, var, **options)
    exact = reference.backward(dy, x, expected.mean, expected.var, gamma, **options)
    with cybn.num_threads(threads):
        y, cache = cybn.forward(x, gamma, beta, mean, var, **options)
        gradients = cybn.backward(dy, cache)
    return [y, mean, var, *gradients], [expected.y, *expected[3:], *exact]


def draw_other_norm(seed):
    """A case of another norm, or of batch norm with a mask; the same for the same seed."""
    rng = random.Random(seed)
    name = rng.choice(list(norms.NORMS))
    shape = draw_shape(rng, 2)
    shape[0] = max(shape[0], 2)
    axis = rng.randrange(int(norms.NORMS[name].axis == 1), len(shape))
    options, mask_shape = {"axis": axis}, None
    if name in ("layer", "RMS"):
        options = {"axis": tuple(range(axis, len(shape)))}
    elif name == "group":
        divisors = [n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0]
        options["num_groups"] = rng.choice(divisors)
    elif name == "batch":
        mask_shape = (*shape[:axis], 1, *shape[axis + 1 :])
    mean, dtype = rng.choice([0, 1000]), rng.choice(["f4", "f8"])
    values = np.random.default_rng(seed)
    return norms.build_norm_case(
        values, name, tuple(shape), options, mask_shape, dtype=dtype, mean=mean, std=2
    )


def call_other_norm(seed):
    """As `call_batch_norm`."""
    case = draw_other_norm(seed)
    with cybn.num_threads(1 + seed % 4):
        results = norms.run_cybn(case)
    exact = norms.run_reference(case, np.float64)
    return [[each for each in one if each is not None] for one in (results, exact)]


def call(seed):
    """Make a call, compare it with the reference, and return all its bytes."""
    results, exact = (call_batch_norm if seed % 3 == 0 else call_other_norm)(seed)
    for one, other in zip(results, exact, strict=True):
        scale = max(1, np.abs(other).max())
        error = np.abs(one - other).max() / scale
        assert error < 1e-5, f"seed {seed}: {one.shape}, off by {error}"
    return b"".join(array.tobytes() for array in results)


def call_in_many_threads(seed, pool, fork):
    first = call(seed)
    assert all(again == first for again in pool.map(call, [seed] * CALLERS))
    if fork:
        call_in_child(seed, first)


def call_in_child(seed, expected):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = int(call(seed) != expected)
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0, f"seed {seed}: the child has other results"


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def soak(seconds, seed):
    """Draw calls for that long; print how many there were and how the memory went."""
    start, calls, sizes = time.monotonic(), 0, []
    with ThreadPoolExecutor(CALLERS) as pool:
        while time.monotonic() - start < seconds:
            call_in_many_threads(seed, pool, fork=seed % EVERY == 0)
            if seed % EVERY == 0:
                sizes.append(resident_bytes())
            calls += 1 + CALLERS
            seed += 1
    half = len(sizes) // 2
    before, after = median(sizes[half // 2 : half]), median(sizes[half:])
    print(f"{calls} calls, resident memory {before / 2**20:.1f}, then {after / 2**20:.1f} MiB")
    assert abs(after - before) < MEMORY_SLACK * before, "the memory is not steady"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    levels = cybn.show_config(mode="dict")["levels"]
    seconds = 60 * arguments.minutes / len(levels)
    for level in levels:
        print(f"{level}: ", end="", flush=True)
        # Every array is mapped on its own, and given back: what remains is what is in use.
        environment = os.environ | {"CYBN_LEVEL": level, "MALLOC_MMAP_THRESHOLD_": "65536"}
        code = f"import soak; soak.soak({seconds}, {arguments.seed})"
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parent, env=environment, check=True
        )


if __name__ == "__main__":
    main()
