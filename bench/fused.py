"""Batch norm with what follows it, and of 16 bit: `python -m bench.fused`.

Forward and backward in training, of cells over 4 MiB of float32. Each system runs in a process of
its own and makes fresh results; ``--out`` compares cybn's calls with one another, writing to arrays
that exist. Between calls other memory is read, so that nothing is in the caches.
"""

import argparse
import fnmatch
import statistics
import time
from functools import partial

import numpy as np

from .cells import CELLS, draw
from .processes import in_a_process

NAMES = {cell.name: cell for cell in CELLS if cell.nbytes("f4") > 4 << 20}
WAYS = "plain", "relu6", "add + relu", "float16", "bfloat16"
ACTIVATIONS = {"relu6": "relu6", "add + relu": "relu"}
EVICTING = np.ones(8 << 20)  # 64 MiB
measured = partial(in_a_process, "bench.fused")


def storage(way):
    """The dtype of a way's arrays."""
    if way == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype("f2" if way == "float16" else "f4")


def cybn_call(cell, way, out):
    """Return forward and backward of cybn as two functions."""
    import cybn

    problem = draw(cell, "f4")
    x, dy = (array.astype(storage(way)) for array in (problem.x, problem.dy))
    options = {"axis": cell.axis, "activation": ACTIVATIONS.get(way)}
    if way == "add + relu":
        options["residual"] = x[::-1].copy()
    written = {"out": np.empty_like(x)} if out else {}
    _, cache = cybn.batch_norm(x, problem.gamma, problem.beta, **options)
    back = {"out": np.empty_like(x)} if out else {}
    if out and "residual" in options:
        back["residual_out"] = np.empty_like(x)
    return (
        lambda: cybn.batch_norm(x, problem.gamma, problem.beta, **options, **written),
        lambda: cybn.backward(dy, cache, **back),
    )


def torch_call(cell, way):
    """Return forward with backward of PyTorch's modules, as one function."""
    import torch

    kind = torch.nn.BatchNorm1d if cell.layout == "NC" else torch.nn.BatchNorm2d
    module = kind(cell.channels)
    after = {"relu6": torch.nn.ReLU6(inplace=True), "add + relu": torch.nn.ReLU(inplace=True)}
    dtype = getattr(torch, "float32" if way not in ("float16", "bfloat16") else way)
    x, dy, residual = (torch.randn(cell.logical).to(dtype) for _ in range(3))
    if cell.layout == "NHWC":
        x, dy, residual = (a.to(memory_format=torch.channels_last) for a in (x, dy, residual))
    x.requires_grad_()

    def forward():
        y = module(x)
        if way == "add + relu":
            y = y + residual
        return after[way](y) if way in after else y

    def both():
        forward().backward(dy)
        x.grad = None

    return (both,)


def measure(system, name, way, threads, seconds, out):
    """Print the median times of forward and backward, in us; their sum where that is one call."""
    if system == "cybn":
        import cybn

        cybn.set_num_threads(threads)
        calls = cybn_call(NAMES[name], way, out)
    else:
        import torch

        torch.set_num_threads(threads)
        calls = torch_call(NAMES[name], way)
    for call in calls:
        times, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 5:
            EVICTING.sum()
            start = time.perf_counter()
            result = call()
            times.append(time.perf_counter() - start)
            del result
        print(1e6 * statistics.median(times[2:]))


def ratios_of(name, given):
    """Return what the table has of a cell, by column, as medians of rounds."""
    rounds = []
    for _ in range(given.rounds):
        ours = {
            way: measured("cybn", name, way, given.threads, given.seconds, given.out)
            for way in WAYS
        }
        plain = ours["plain"]
        row = {}
        for way in WAYS[1:]:
            forward, backward = (a / b for a, b in zip(ours[way], plain, strict=True))
            row |= {f"{way}, forward": forward, f"{way}, backward": backward}
            row[f"{way}, both"] = sum(ours[way]) / sum(plain)
        if not given.out:
            row = {}
            for way in WAYS:
                (theirs,) = measured("torch", name, way, given.threads, given.seconds, False)
                row[f"PyTorch, {way}"] = theirs / sum(ours[way])
        rounds.append(row)
    return {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", nargs="+", default=["*"], help="patterns of names")
    parser.add_argument("--out", action="store_true", help="cybn alone: ratios to its plain call")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="of calls of each kind")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        system, name, way, threads, seconds, out = given.one
        measure(system, name, way, int(threads), float(seconds), out == "True")
        return
    names = [n for n in NAMES if any(fnmatch.fnmatch(n, each) for each in given.cells)]
    table = {}
    for name in names:
        row = ratios_of(name, given)
        if not table:
            print("| cell | " + " | ".join(row) + " |\n" + "| --- " * (len(row) + 1) + "|")
        print(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in row.values()) + " |")
        for key, ratio in row.items():
            table.setdefault(key, []).append(ratio)
    means = map(statistics.geometric_mean, table.values())
    print("| geometric mean | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")


if __name__ == "__main__":
    main()
