"""
New statistics for a new kind of data
=====================================

A network with batch normalization learns scikit-learn's digits, and then meets ever darker and
noisier ones. It reads them as it was trained, then after `cybn.calibrate` has seen such digits
(without their labels), and, to compare, after training on them. ``python examples/domain_shift.py``
prints a table and leaves a picture in the folder ``results``.

.. image:: /images/domain_shift.png

Where the shift is strong but the digits can still be read, calibrating recovers most of what
was lost, without a label and without a step of training.
"""

# sphinx_gallery_thumbnail_path = "images/domain_shift.png"

import copy
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import TypeAlias

import numpy as np
from _network import (
    Dense,
    Digits,
    IntArray,
    Layer,
    Network,
    ReLU,
    accuracy,
    mini_batches,
    train_epoch,
    unit_digits,
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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from tqdm import tqdm

import cybn

PIXELS, HIDDEN, CLASSES = 64, 128, 10
BATCH_SIZE, LEARNING_RATE = 32, 0.1
SHIFTS = np.linspace(0, 1, 11)
SEEDS = range(5)
COLORS = {"as trained": "#d1495b", "calibrated": "#00798c", "trained anew": "#8a8a8a"}

Results: TypeAlias = Mapping[str, NDArray[np.float64]]


def shifted(x: NDArray[np.float32], shift: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Take up to 85 % of the light from digits with pixels of 0 to 1, and add noise."""
    noise = rng.normal(scale=0.1, size=x.shape)
    return ((1 - 0.85 * shift) * x + shift * noise).astype(np.float32)


def build(rng: np.random.Generator) -> Network:
    layers: list[Layer] = []
    for inputs in (PIXELS, HIDDEN):
        layers += [Dense(inputs, HIDDEN, rng), cybn.BatchNorm(HIDDEN), ReLU()]
    return Network(*layers, Dense(HIDDEN, CLASSES, rng))


def train(x: NDArray[np.float32], labels: IntArray, seed: int, epochs: int) -> Network:
    rng = np.random.default_rng(seed)
    network = build(rng)
    for _ in range(epochs):
        train_epoch(network, x, labels, BATCH_SIZE, LEARNING_RATE, rng)
    return network


def calibrate(network: Network, x: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Give the network's norms the statistics of x; nothing else in it changes."""
    norms = [layer for layer in network.layers if isinstance(layer, cybn.BatchNorm)]
    with cybn.calibrate(*norms):
        for batch in mini_batches(len(x), BATCH_SIZE, rng):
            network(x[batch])


def run(
    network: Network, digits: Digits, shift: float, seed: int, epochs: int
) -> tuple[float, float, float]:
    """Return the accuracies on shifted digits, in the order of COLORS."""
    x_train, x_test, labels_train, labels_test = digits
    rng = np.random.default_rng(seed)
    target_train, target_test = shifted(x_train, shift, rng), shifted(x_test, shift, rng)
    as_trained = accuracy(network, target_test, labels_test)
    calibrate(network, target_train, rng)
    calibrated = accuracy(network, target_test, labels_test)
    anew = train(target_train, labels_train, seed, epochs)
    return as_trained, calibrated, accuracy(anew, target_test, labels_test)


def sweep(digits: Digits, epochs: int) -> Results:
    """Return the accuracies for each kind of network, of shape (shifts, seeds)."""
    results = np.empty((len(COLORS), len(SHIFTS), len(SEEDS)))
    runs = list(product(enumerate(SEEDS), enumerate(SHIFTS)))
    x_train, _, labels_train, _ = digits
    networks = [train(x_train, labels_train, seed, epochs) for seed in SEEDS]
    for (j, seed), (i, shift) in tqdm(runs, desc="shifting", unit="run"):
        results[:, i, j] = run(copy.deepcopy(networks[j]), digits, shift, seed, epochs)
    return dict(zip(COLORS, results, strict=True))


def conclusion(results: Results) -> str:
    """Return in one sentence what calibrating brought back where it brought most."""
    before, after, anew = (accuracies.mean(axis=1) for accuracies in results.values())
    i = np.argmax(after - before)
    return (
        f"At a shift of {SHIFTS[i]:.0%}, where calibrating helps most, the network falls from"
        f" {before[0]:.1%} to {before[i]:.1%}; new statistics alone, without a label or a step of"
        f" training, bring it to {after[i]:.1%}, and a network trained on such"
        f" digits reaches {anew[i]:.1%}."
    )


def draw_digits(panels: Iterable[Axes], x_test: NDArray[np.float32]) -> None:
    """Draw the first test digits, one below the other, and a column for each shift."""
    rng = np.random.default_rng(0)
    for axes, shift in zip(panels, SHIFTS, strict=True):
        digits = shifted(x_test[:3], shift, rng).reshape(-1, 8, 8)
        apart = np.pad(digits, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan)
        axes.imshow(np.vstack(list(apart)), cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{shift:.0%}", fontsize="medium")
        axes.set_axis_off()


def save_picture(results: Results, x_test: NDArray[np.float32], path: Path) -> None:
    figure = Figure(figsize=(8, 7), layout="constrained", dpi=120)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[2, 5]).flat
    draw_digits(top.subplots(1, len(SHIFTS)), x_test)
    axes = bottom.subplots()
    for name, accuracies in results.items():
        draw_runs(axes, SHIFTS, accuracies, COLORS[name], name)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("shift: less light and more noise")
    set_accuracy_axis(axes, [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98])
    axes.legend(frameon=False, loc="lower left")
    style(axes, "A network that learned from clean digits")
    figure.savefig(path)


def main() -> None:
    arguments = example_parser(__doc__, epochs=8).parse_args()
    picture = picture_path(arguments.out, "domain_shift")

    use_one_thread()
    digits = unit_digits(seed=0)
    results = sweep(digits, arguments.epochs)
    print_accuracies("shift", [f"{shift:.0%}" for shift in SHIFTS], results)
    save_picture(results, digits[1], picture)
    print(f"Picture: {picture}")
    print(f"\n{conclusion(results)}")


if __name__ == "__main__":
    main()
