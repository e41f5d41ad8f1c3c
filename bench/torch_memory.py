"""Memory of one training step, with and without cybn: `python -m bench.torch_memory`.

Each way runs in a process of its own, and all its memory counts: cybn's arrays are not from
PyTorch's allocator, so that PyTorch's profiler would not see them. After a warm-up the kernel's
mark of peak memory (VmHWM) is set back; "peak" is how far a step raises it above what the process
had before, and "kept" is what is there between forward and backward. glibc hands freed blocks back
at once (MALLOC_MMAP_THRESHOLD_), and cybn keeps none (`set_kept_memory(0)`). Linux only.
"""

import argparse
import contextlib
import gc
import re
import statistics
from functools import partial
from itertools import product
from pathlib import Path

from .processes import in_a_process

WAYS = ("eager", "fused", "recomputed")
FORMATS = ("contiguous", "channels_last")
CASES = {  # and the shape of their input
    "block": (16, 64, 112, 112),
    "blocks": (16, 64, 56, 56),
    "mobilenet_v2": (16, 3, 160, 160),
    "resnet18": (16, 3, 160, 160),
}
MIB = 1024.0  # KiB
measured = partial(in_a_process, "bench.torch_memory", MALLOC_MMAP_THRESHOLD_="65536")


def build(case):
    """Return a model: a network, or a chain of (convolution, norm, ReLU), and a convolution."""
    from torch import nn

    from . import torch_networks

    if hasattr(torch_networks, case):
        return getattr(torch_networks, case)(10)
    number = 1 if case == "block" else 8
    layers = [
        layer
        for _ in range(number)
        for layer in torch_networks.conv_norm(64, 64, activation=nn.ReLU)
    ]
    return nn.Sequential(*layers, nn.Conv2d(64, 64, 3, padding=1))


def read(field):
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / MIB


def measure(case, way, layout, threads):
    """Return what a step keeps between forward and backward, and its peak, in MiB."""
    import torch

    import cybn.torch

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    cybn.set_kept_memory(0)
    model, x = build(case), torch.randn(CASES[case])
    if layout == "channels_last":
        model, x = (each.to(memory_format=torch.channels_last) for each in (model, x))
    if way != "eager":
        cybn.torch.convert(model, fuse=True)
    around = cybn.torch.recompute if way == "recomputed" else contextlib.nullcontext
    for _ in range(2):  # the first is the warm-up
        model.zero_grad()
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = read("VmRSS")
        with around():
            loss = model(x).square().mean()
        kept = read("VmRSS")
        loss.backward()
        del loss
    return kept - before, read("VmHWM") - before


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        case, way, layout, threads = given.one
        print(*measure(case, way, layout, int(threads)))
        return
    print(f"| MiB, and ratio to eager | | {' | '.join(WAYS)} |")
    print("| --- " * (2 + len(WAYS)) + "|")
    for case, layout in product(given.cases, given.formats):
        found = []
        for way in WAYS:
            runs = [measured(case, way, layout, given.threads) for _ in range(given.rounds)]
            found.append([statistics.median(each) for each in zip(*runs, strict=True)])
        for name, values in zip(("kept", "peak"), zip(*found, strict=True), strict=True):
            cells = " | ".join(f"{each:.0f} ({each / values[0]:.2f})" for each in values)
            print(f"| {case} {layout} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
