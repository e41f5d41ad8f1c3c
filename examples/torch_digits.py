"""
PyTorch networks with and without cybn
======================================

A small dense and a small convolutional network learn scikit-learn's digits: as they are, converted
by ``cybn.torch.convert``, and fused. ``python examples/torch_digits.py`` prints their accuracies,
and whether the norms have the same digits with one and with two threads. It leaves a picture in the
folder ``results``.
"""

# sphinx_gallery_thumbnail_path = "images/torch_digits.png"

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from _network import unit_digits
from _output import draw_runs, example_parser, picture_path, set_accuracy_axis, style
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

import cybn.torch

SEEDS = range(3)
BATCH_SIZE = 64
Change: TypeAlias = Callable[[nn.Module], nn.Module]
WAYS: dict[str, tuple[Change, str]] = {
    "PyTorch": (lambda model: model, "#8a8a8a"),
    "converted": (cybn.torch.convert, "#00798c"),
    "fused": (lambda model: cybn.torch.convert(model, fuse=True), "#d1495b"),
}


def dense_network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 10))


def convolutional_network() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)),
        *(nn.Conv2d(32, 64, 3, 2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(True)),
        *(nn.Flatten(), nn.Linear(1024, 10)),
    )


NETWORKS = {"dense": dense_network, "convolutional": convolutional_network}


def load(seed: int) -> tuple[torch.Tensor, ...]:
    """Return training and test rows and labels as tensors."""
    x_train, x_test, *labels = unit_digits(seed)
    rows = [torch.from_numpy(x.astype(np.float32)) for x in (x_train, x_test)]
    return *rows, *map(torch.from_numpy, labels)


def accuracy(model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == labels).float().mean())


def train(build: Callable[[], nn.Module], change: Change, seed: int, epochs: int) -> list[float]:
    """Return the test accuracy after each epoch."""
    torch.manual_seed(seed)
    x_train, x_test, labels_train, labels_test = load(seed)
    model = change(build())
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    curve = []
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x_train)).split(BATCH_SIZE):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x_train[rows]), labels_train[rows]).backward()
            optimizer.step()
        curve.append(accuracy(model, x_test, labels_test))
    return curve


def norm_digits(change: Change) -> list[torch.Tensor]:
    """Return what a norm makes of the same rows with one thread and with two."""
    x = torch.randn(1347, 256, generator=torch.Generator().manual_seed(0))
    norm, results, before = change(nn.BatchNorm1d(256)), [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(copy.deepcopy(norm)(x))
    torch.set_num_threads(before)
    return results


def save_picture(
    results: Mapping[str, Mapping[str, NDArray[np.float64]]], epochs: int, path: Path
) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained", dpi=120)
    for axes, (name, ways) in zip(figure.subplots(1, 2), results.items(), strict=True):
        for way, curves in ways.items():
            draw_runs(axes, np.arange(1, epochs + 1), curves.T, WAYS[way][1], way)
        set_accuracy_axis(axes, [0.1, 0.5, 0.8, 0.9, 0.95, 0.98])
        axes.set_xlabel("epoch")
        style(axes, f"{name} network")
        axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    arguments = example_parser(__doc__, epochs=5).parse_args()
    picture = picture_path(arguments.out, "torch_digits")
    torch.set_num_threads(1)  # the networks are small
    results = {
        name: {
            way: np.array([train(build, change, seed, arguments.epochs) for seed in SEEDS])
            for way, (change, _) in WAYS.items()
        }
        for name, build in NETWORKS.items()
    }
    print(f"\n{'network':<15}" + "".join(f"{way:>12}" for way in WAYS))
    for name, ways in results.items():
        means = (curves[:, -1].mean() for curves in ways.values())
        print(f"{name:<15}" + "".join(f"{mean:>12.1%}" for mean in means))
    print(f"Test accuracy at the end, the mean of {len(SEEDS)} runs.")
    save_picture(results, arguments.epochs, picture)
    print(f"Picture: {picture}")
    same = {way: torch.equal(*norm_digits(change)) for way, (change, _) in WAYS.items()}
    words = [
        f"{way} {'the same digits' if equal else 'other digits'}" for way, equal in same.items()
    ]
    print(f"\nWith two threads instead of one a norm has: {', '.join(words)}.")


if __name__ == "__main__":
    main()
