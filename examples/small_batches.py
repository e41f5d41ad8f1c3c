"""
Small batches: batch, group and layer norm
==========================================

Dense, norm, ReLU, twice, and a Dense layer, in plain NumPy, learn scikit-learn's digits from
batches of 2 to 64, with each norm and with none, for the same number of epochs. The learning rate
grows with the batch. ``python examples/small_batches.py`` prints a table and leaves a picture in
the folder ``results``.

.. image:: /images/small_batches.png

With batches of two, batch norm falls far behind. From eight on it keeps up, and at sixteen it is
ahead. Group and layer norm do not look at the batch, and so its size hardly matters to them.
"""

# sphinx_gallery_thumbnail_path = "images/small_batches.png"

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from _network import (
    Dense,
    Digits,
    Layer,
    Network,
    ReLU,
    accuracy,
    scaled_digits,
    train_epoch,
    use_one_thread,
)
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
from tqdm import tqdm

import cybn

PIXELS, HIDDEN, CLASSES = 64, 128, 10
GROUPS = 8
BATCH_SIZES = (2, 4, 8, 16, 32, 64)
RATE_PER_ROW = 0.2 / 32
SEEDS = range(5)


class Norm(NamedTuple):
    """What normalizes the features of a network, None for nothing."""

    name: str
    layer: Callable[[int], Layer] | None
    color: str


NORMS = (
    Norm("batch norm", cybn.BatchNorm, "#00798c"),
    Norm("group norm", lambda features: cybn.GroupNorm(GROUPS, features), "#e09f1f"),
    Norm("layer norm", cybn.LayerNorm, "#d1495b"),
    Norm("no norm", None, "#8a8a8a"),
)
Results: TypeAlias = Mapping[Norm, NDArray[np.float64]]


def build(norm: Norm, rng: np.random.Generator) -> Network:
    layers: list[Layer] = []
    for inputs in (PIXELS, HIDDEN):
        layers.append(Dense(inputs, HIDDEN, rng))
        if norm.layer is not None:
            layers.append(norm.layer(HIDDEN))
        layers.append(ReLU())
    return Network(*layers, Dense(HIDDEN, CLASSES, rng))


def run(norm: Norm, digits: Digits, batch_size: int, seed: int, epochs: int) -> float:
    """Train a network, and return its accuracy on the test digits."""
    x_train, x_test, labels_train, labels_test = digits
    rng = np.random.default_rng(seed)
    network = build(norm, rng)
    for _ in range(epochs):
        rate = RATE_PER_ROW * batch_size
        train_epoch(network, x_train, labels_train, batch_size, rate, rng)
    return accuracy(network, x_test, labels_test)


def sweep(digits: Digits, epochs: int) -> Results:
    """Return the accuracies for each norm, of shape (batch sizes, seeds)."""
    results = {norm: np.empty((len(BATCH_SIZES), len(SEEDS))) for norm in NORMS}
    runs = list(product(NORMS, enumerate(BATCH_SIZES), enumerate(SEEDS)))
    for norm, (i, batch_size), (j, seed) in tqdm(runs, desc="training", unit="run"):
        results[norm][i, j] = run(norm, digits, batch_size, seed, epochs)
    return results


def conclusion(results: Results) -> str:
    """Return in one sentence what small batches do to each norm."""
    of_batch_norm = results[NORMS[0]].mean(axis=1)
    best = of_batch_norm.argmax()
    others = {norm.name: runs.mean(axis=1) for norm, runs in results.items() if norm != NORMS[0]}
    ranges = [f"{means.min():.1%}-{means.max():.1%} ({name})" for name, means in others.items()]
    spread = max(np.ptp(runs[best]) for runs in results.values())
    return (
        f"With batches of {BATCH_SIZES[0]} batch norm ends at {of_batch_norm[0]:.1%} and with"
        f" batches of {BATCH_SIZES[best]} at {of_batch_norm[best]:.1%}, its best; the others, which"
        f" do not look at the batch, stay within {', '.join(ranges)}; runs that differ in"
        f" the seed alone are up to {100 * spread:.1f} points apart at batch norm's best size."
    )


def save_picture(results: Results, path: Path) -> None:
    figure = Figure(figsize=(8, 5), layout="constrained", dpi=120)
    axes = figure.subplots()
    for i, (norm, accuracies) in enumerate(results.items()):
        beside = np.array(BATCH_SIZES) * 1.04 ** (i - len(results) / 2)
        draw_runs(axes, beside, accuracies, norm.color, norm.name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(BATCH_SIZES, [f"{size}" for size in BATCH_SIZES])
    axes.set_xlabel("batch size")
    set_accuracy_axis(axes, [0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99])
    axes.legend(frameon=False, loc="lower right")
    style(axes, "Learning from small batches")
    figure.savefig(path)


def main() -> None:
    arguments = example_parser(__doc__, epochs=6).parse_args()
    picture = picture_path(arguments.out, "small_batches")

    use_one_thread()
    results = sweep(scaled_digits(seed=0), arguments.epochs)
    accuracies = {norm.name: runs for norm, runs in results.items()}
    print_accuracies("batch size", BATCH_SIZES, accuracies)
    save_picture(results, picture)
    print(f"Picture: {picture}")
    print(f"\n{conclusion(results)}")


if __name__ == "__main__":
    main()
