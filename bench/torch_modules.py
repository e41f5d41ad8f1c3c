"""Batch norm modules alone, PyTorch's and cybn's: `python -m bench.torch_modules`.

Forward and backward in training, over the cells of the table. Each runs in a process of its own.
"""

import argparse
import fnmatch
import statistics
import time
from functools import partial

from .cells import CELLS
from .processes import in_a_process

NAMES = {cell.name: cell for cell in CELLS}
measured = partial(in_a_process, "bench.torch_modules")


def measure(name, ours, threads, seconds):
    """Return the median time of a forward and a backward in us, after a warm-up."""
    import torch

    import cybn.torch

    torch.set_num_threads(threads)
    cell = NAMES[name]
    kind = "BatchNorm1d" if cell.layout == "NC" else "BatchNorm2d"
    module = getattr(cybn.torch if ours else torch.nn, kind)(cell.channels)
    x, dy = torch.randn(cell.logical), torch.randn(cell.logical)
    if cell.layout == "NHWC":
        x, dy = (each.to(memory_format=torch.channels_last) for each in (x, dy))
    x.requires_grad_()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        module(x).backward(dy)
        x.grad = module.weight.grad = module.bias.grad = None
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times[2:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", nargs="+", default=["*"], help="patterns of names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1, help="of calls in each process")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, ours, threads, seconds = given.one
        print(measure(name, ours == "True", int(threads), float(seconds)))
        return
    print("| cell | PyTorch, µs | cybn, µs | ratio |\n| --- | --- | --- | --- |")
    large = []
    for name in (n for n in NAMES if any(fnmatch.fnmatch(n, each) for each in given.cells)):
        rounds = [
            [measured(name, ours, given.threads, given.seconds)[0] for ours in (False, True)]
            for _ in range(given.rounds)
        ]
        theirs, ours = (statistics.median(times) for times in zip(*rounds, strict=True))
        print(f"| {name} | {theirs:,.1f} | {ours:,.1f} | {theirs / ours:.2f} |", flush=True)
        if NAMES[name].nbytes("f4") > 4 << 20:
            large.append(theirs / ours)
    if large:
        mean = statistics.geometric_mean(large)
        print(f"\nOver 4 MiB: geometric mean {mean:.2f}, worst {min(large):.2f}")


if __name__ == "__main__":
    main()
