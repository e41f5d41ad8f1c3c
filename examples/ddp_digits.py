"""
Data-parallel training in PyTorch
=================================

Several processes train one PyTorch network on scikit-learn's digits, each with its part of every
batch, under ``DistributedDataParallel``. With ``cybn.torch.SyncBatchNorm`` the batch norms take
their statistics over the parts of all, and the accuracy goes the way that one process goes with
whole batches. With PyTorch's batch norm, each process normalizes by the statistics of its own few
rows. ``torchrun --nproc-per-node 2 examples/ddp_digits.py`` prints a table and leaves a picture in
the folder ``results``.

.. image:: /images/ddp_digits.png

* A network needs two changes: ``convert_sync_batchnorm``, and then ``DistributedDataParallel``.
* A batch need not divide evenly. Each process weighs its rows as the whole batch does.
"""

# sphinx_gallery_thumbnail_path = "images/ddp_digits.png"

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from _network import mini_batches
from _output import (
    draw_runs,
    example_parser,
    picture_path,
    print_accuracies,
    set_accuracy_axis,
    style,
)
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch_digits import accuracy, dense_network, load

import cybn.torch

SEEDS = range(2)
BATCH_SIZE = 9  # of all processes, at least: so small that it matters whose statistics are taken
LEARNING_RATE = 0.05
Change: TypeAlias = Callable[[nn.Module], nn.Module]
SYNCHRONIZED: Change = cybn.torch.SyncBatchNorm.convert_sync_batchnorm
WAYS: dict[str, tuple[Change, str]] = {
    "one process": (lambda model: model, "#8a8a8a"),
    "synchronized": (lambda model: DistributedDataParallel(SYNCHRONIZED(model)), "#00798c"),
    "each its own": (lambda model: DistributedDataParallel(model), "#d1495b"),
}


def join() -> tuple[int, int]:
    """Join the processes of torchrun, or be the only one; return the rank and their number."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    if "RANK" not in os.environ:
        os.environ.update(alone)
    distributed.init_process_group("gloo")
    return distributed.get_rank(), distributed.get_world_size()


def train(change: Change, seed: int, epochs: int) -> list[float]:
    """Return the test accuracy after each epoch."""
    torch.manual_seed(seed)
    x_train, x_test, labels_train, labels_test = load(seed)
    x_train, x_test = x_train.double(), x_test.double()  # sums in another order: the same curve
    model = change(dense_network().double())
    parallel = isinstance(model, DistributedDataParallel)
    rank, size = (distributed.get_rank(), distributed.get_world_size()) if parallel else (0, 1)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)
    rng = np.random.default_rng(seed)  # the same batches in all processes
    batch_size = max(BATCH_SIZE, 2 * distributed.get_world_size())  # alone, each needs two rows
    curve = []
    for _ in range(epochs):
        model.train()
        for batch in mini_batches(len(x_train), batch_size, rng):
            own = torch.from_numpy(np.array_split(batch, size)[rank])
            optimizer.zero_grad()
            loss = cross_entropy(model(x_train[own]), labels_train[own], reduction="sum")
            # DistributedDataParallel takes the mean over processes; this is that over rows.
            (loss * (size / len(batch))).backward()
            optimizer.step()
        curve.append(accuracy(model, x_test, labels_test))
    return curve


def save_picture(results: dict[str, NDArray[np.float64]], size: int, path: Path) -> None:
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=120)
    axes = figure.subplots()
    for way, curves in results.items():
        draw_runs(axes, np.arange(1, len(curves) + 1), curves, WAYS[way][1], way)
    set_accuracy_axis(axes, [0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99])
    axes.set_xlabel("epoch")
    axes.legend(frameon=False)
    style(axes, f"{size} processes, batches of {max(BATCH_SIZE, 2 * size)} rows in all")
    figure.savefig(path)


def main() -> None:
    arguments = example_parser(__doc__, epochs=5).parse_args()
    torch.set_num_threads(1)  # the network is small
    rank, size = join()
    results = {
        way: np.array([train(change, seed, arguments.epochs) for seed in SEEDS]).T
        for way, (change, _) in WAYS.items()
    }
    distributed.destroy_process_group()
    if rank:
        return
    picture = picture_path(arguments.out, "ddp_digits")
    print_accuracies("epoch", range(1, arguments.epochs + 1), results)
    save_picture(results, size, picture)
    print(f"Picture: {picture}")
    if size == 1:
        print("\nThis is one process. Start two by torchrun, as above, to see what they share.")
        return
    one, together, apart = results.values()
    same = "those of one process" if np.array_equal(one, together) else "not those of one process"
    print(
        f"\nThe accuracies are {same} when {size} processes share the statistics, and up to "
        f"{np.abs(one - apart).max():.1%} away when each takes its own."
    )


if __name__ == "__main__":
    main()
