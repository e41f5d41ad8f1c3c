"""cybn.dask.moments beside Dask's own mean and var, on a LocalCluster, of data made in chunks.

python -m bench.dask_moments makes 20 GB of float32 images on two workers with 1 GiB each. It prints
seconds, the errors against exact sums of integers, what memory a worker took at most, and how many
workers had to be started again.
"""

import argparse
import os
import resource
import time
from fractions import Fraction

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import cybn.dask

CHANNELS, SIDE = 64, 128
LARGEST, UNIT = 2**16, 64  # a value is (LARGEST * UNIT + digits) / UNIT: exact in float32
AXES = 0, 2, 3


def digits(block_id, images):
    """Return the random part of the values of a chunk: integers below LARGEST."""
    shape = images, CHANNELS, SIDE, SIDE
    return np.random.default_rng(block_id).integers(0, LARGEST, shape, np.uint16)


def values(images, block_id):
    """Return a chunk: the mean is some 220 deviations, as for pressures or temperatures."""
    x = digits(block_id, images).astype(np.float32)
    x += LARGEST * UNIT
    x /= UNIT
    return x


def exact_sums(images, block_id):
    """Return the sums of a chunk's digits and of their squares, which float64 has exactly."""
    x = digits(block_id, images).astype(np.float64)
    sums = x.sum(axis=AXES), np.einsum("nchw,nchw->c", x, x)
    return np.array(sums).astype(np.int64)[..., None, None]


def array_of(options, function, dtype, chunk_shape):
    """Return a Dask array of what a function makes of each chunk."""
    chunk_bytes = 4 * CHANNELS * SIDE**2 * options.images
    chunks = max(1, round(options.gigabytes * 1e9 / chunk_bytes))
    return da.map_blocks(
        function,
        images=options.images,
        chunks=((chunk_shape[0],) * chunks, *chunk_shape[1:]),
        meta=np.empty((0,) * 4, dtype),
        name=f"{function.__name__}-{options.images}",
    )


def exact_moments(options):
    """Return the mean and the variance of each channel as fractions."""
    sums = array_of(options, exact_sums, np.int64, (2, CHANNELS, 1, 1))
    chunks = sums.numblocks[0]
    total = sums.reshape(chunks, 2, CHANNELS).sum(axis=0).compute()
    n = chunks * options.images * SIDE**2
    mean = [Fraction(int(s), n) for s in total[0]]
    var = [Fraction(int(s), n) - m**2 for s, m in zip(total[1], mean, strict=True)]
    return [LARGEST + m / UNIT for m in mean], [v / UNIT**2 for v in var]


def by_cybn(x):
    moments = cybn.dask.moments(x).compute()
    return moments.mean, moments.var()


def by_dask(x, dtype=None, **options):
    return dask.compute(x.mean(AXES, dtype=dtype), x.var(AXES, dtype=dtype), **options)


SYSTEMS = {
    "cybn": by_cybn,
    "dask": by_dask,
    "dask, float64": lambda x: by_dask(x, "f8"),
    # Without optimizing, Dask makes a chunk once for both.
    "dask, float64, shared chunks": lambda x: by_dask(x, "f8", optimize_graph=False),
}


def errors(result, exact):
    """Return the largest errors, of means in deviations and of variances in themselves."""
    pairs = [
        (abs(Fraction(float(mean)) - m) ** 2 / v, abs(Fraction(float(var)) - v) / v)
        for mean, var, m, v in zip(*result, *exact, strict=True)
    ]
    of_means, of_vars = zip(*pairs, strict=True)
    return float(max(of_means)) ** 0.5, float(max(of_vars))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(options, client):
    x = array_of(options, values, np.float32, (options.images, CHANNELS, SIDE, SIDE))
    print(f"{x.nbytes / 1e9:.1f} GB in {x.npartitions} chunks, on {options.workers} workers\n")
    started = client.run(os.getpid)
    exact = exact_moments(options)
    print("| system | seconds | error of the mean | error of the variance |", flush=True)
    print("| --- " * 4 + "|")
    for name in options.systems:
        start = time.perf_counter()
        result = SYSTEMS[name](x)
        seconds = time.perf_counter() - start
        of_mean, of_var = errors(result, exact)
        print(f"| {name} | {seconds:.1f} | {of_mean:.1e} | {of_var:.1e} |", flush=True)
    print(
        f"\nMost memory of a worker: {max(client.run(peak).values()):.0f} MiB of {options.memory}"
    )
    ended = client.run(os.getpid)
    print(f"Workers that were started again: {len(set(ended.values()) - set(started.values()))}")


def parser():
    parser = argparse.ArgumentParser(prog="python -m bench.dask_moments", description=__doc__)
    add = parser.add_argument
    add("--gigabytes", type=float, default=20.0)
    add("--images", type=int, default=16, help="in a chunk: 4 MiB each")
    add("--workers", type=int, default=2, help="of one thread")
    add("--memory", default="1GiB", help="of a worker")
    add("--systems", nargs="+", choices=SYSTEMS, default=[*SYSTEMS])
    return parser


def main():
    options = parser().parse_args()
    cluster = LocalCluster(
        n_workers=options.workers,
        threads_per_worker=1,
        memory_limit=options.memory,
        dashboard_address=None,
    )
    with cluster, Client(cluster) as client:
        measure(options, client)


if __name__ == "__main__":
    main()
