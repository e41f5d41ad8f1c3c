"""Training steps of three networks, with and without cybn: `python -m bench.torch_steps`.

Each way runs in a process of its own, which prints the median of its steps; the ways take turns.
"""

import argparse
import statistics
import time
from functools import partial
from itertools import product

from .processes import in_a_process

WAYS = ("eager", "compiled", "converted", "fused", "recomputed")
NETWORKS = {  # and the shape of their input
    "mobilenet_v2": (16, 3, 160, 160),
    "resnet18": (16, 3, 160, 160),
    "unet": (4, 3, 128, 128),
}
FORMATS = ("contiguous", "channels_last")
measured = partial(in_a_process, "bench.torch_steps")


def build(network, way, last):
    """Return a model in training, and a function that makes a step of it."""
    import torch

    import cybn.torch

    from . import torch_networks

    torch.manual_seed(0)
    model = getattr(torch_networks, network)(10)
    x = torch.randn(NETWORKS[network])
    if last:
        model, x = (each.to(memory_format=torch.channels_last) for each in (model, x))
    if way in ("converted", "fused", "recomputed"):
        cybn.torch.convert(model, fuse=way != "converted")
    lengths = (len(x), *x.shape[2:]) if network == "unet" else (len(x),)
    target = torch.randint(10, lengths)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    changes = {"compiled": torch.compile, "recomputed": cybn.torch.recompute()}
    call = changes[way](model) if way in changes else model

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(call(x), target).backward()
        optimizer.step()

    return step


def measure(network, way, layout, threads, seconds):
    """Return the median time of a step in ms, after a warm-up."""
    import torch

    torch.set_num_threads(threads)
    step = build(network, way, layout == "channels_last")
    for _ in range(3):
        step()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of steps in each process")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        network, way, layout, threads, seconds = given.one
        print(measure(network, way, layout, int(threads), float(seconds)))
        return
    print(f"| ms a step | threads | {' | '.join(given.ways)} |")
    print("| --- " * (2 + len(given.ways)) + "|")
    for network, layout, threads in product(given.networks, given.formats, given.threads):
        rounds = [
            [measured(network, way, layout, threads, given.seconds)[0] for way in given.ways]
            for _ in range(given.rounds)
        ]
        medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
        times = " | ".join(f"{each:.1f}" for each in medians)
        print(f"| {network} {layout} | {threads} | {times} |", flush=True)


if __name__ == "__main__":
    main()
