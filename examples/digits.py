"""
Handwritten digits with and without batch norm
==============================================

Dense, BatchNorm, ReLU, Dense, softmax: a small network in plain NumPy learns scikit-learn's digits
with batch normalization and without, at many learning rates. A third variant has a further
BatchNorm as its first layer, in place of a standard scaler. ``python examples/digits.py`` prints a
table and leaves a picture and the trained layers in the folder ``results``.

.. image:: /images/digits.png

* On scaled pixels the gain is modest. The highest learning rate that trains doubles, and the best
  accuracy rises by less than half a point.
* On raw pixels the gain is large. The highest rate grows twentyfold, and the network learns in one
  epoch what took four: batch norm as the first layer does what the scaler did.
* At low learning rates batch norm costs accuracy.
"""

# sphinx_gallery_thumbnail_path = "images/digits.png"

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from _network import (
    Dense,
    IntArray,
    Network,
    ReLU,
    accuracy,
    split_digits,
    train_epoch,
    use_one_thread,
)
from _output import example_parser, picture_path, set_accuracy_axis, style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

import cybn

PIXELS, HIDDEN, CLASSES = 64, 128, 10
BATCH_SIZE = 32
LEARNING_RATES = np.geomspace(0.001, 10, 13).tolist()
SEEDS = range(3)
TARGET = 0.95


def plain_network(rng: np.random.Generator) -> Network:
    return Network(Dense(PIXELS, HIDDEN, rng), ReLU(), Dense(HIDDEN, CLASSES, rng))


def normalized_network(rng: np.random.Generator) -> Network:
    return Network(
        Dense(PIXELS, HIDDEN, rng), cybn.BatchNorm(HIDDEN), ReLU(), Dense(HIDDEN, CLASSES, rng)
    )


def self_scaling_network(rng: np.random.Generator) -> Network:
    # momentum=None: the running statistics are those of all the training rows, as a scaler's are.
    return Network(cybn.BatchNorm(PIXELS, momentum=None), *normalized_network(rng).layers)


class Variant(NamedTuple):
    """A network, and whether a standard scaler stands before it."""

    name: str
    scaled: bool
    build: Callable[[np.random.Generator], Network]
    color: str


VARIANTS = (
    Variant("raw pixels", False, plain_network, "#8a8a8a"),
    Variant("scaled pixels", True, plain_network, "#d1495b"),
    Variant("scaled + BatchNorm", True, normalized_network, "#00798c"),
    Variant("raw + 2 BatchNorm", False, self_scaling_network, "#e09f1f"),
)
Results: TypeAlias = Mapping[Variant, NDArray[np.float64]]


class Digits(NamedTuple):
    """The training and the test rows, raw and scaled, and the labels of both."""

    raw: tuple[NDArray[np.float32], NDArray[np.float32]]
    scaled: tuple[NDArray[np.float32], NDArray[np.float32]]
    labels: tuple[IntArray, IntArray]

    def rows(self, variant: Variant) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.scaled if variant.scaled else self.raw


def load_digits() -> Digits:
    x_train, x_test, labels_train, labels_test = split_digits(seed=0)
    scaler = StandardScaler().fit(x_train)
    scaled = np.asarray(scaler.transform(x_train)), np.asarray(scaler.transform(x_test))
    return Digits((x_train, x_test), scaled, (labels_train, labels_test))


def train(
    variant: Variant, digits: Digits, learning_rate: float, seed: int, epochs: int
) -> tuple[Network, list[float]]:
    """Return a trained network and its test accuracy after each epoch."""
    x_train, x_test = digits.rows(variant)
    labels_train, labels_test = digits.labels
    rng = np.random.default_rng(seed)
    network = variant.build(rng)
    curve = []
    for _ in range(epochs):
        train_epoch(network, x_train, labels_train, BATCH_SIZE, learning_rate, rng)
        curve.append(accuracy(network, x_test, labels_test))
    return network, curve


def sweep(digits: Digits, epochs: int) -> Results:
    """Return for each variant its curves, of shape (learning rates, seeds, epochs)."""
    shape = len(LEARNING_RATES), len(SEEDS), epochs
    results = {variant: np.empty(shape) for variant in VARIANTS}
    runs = list(product(VARIANTS, enumerate(LEARNING_RATES), enumerate(SEEDS)))
    with np.errstate(all="ignore"):  # a rate that is too high overflows: that is a result, too
        for variant, (i, rate), (j, seed) in tqdm(runs, desc="training", unit="run"):
            _, results[variant][i, j] = train(variant, digits, rate, seed, epochs)
    return results


def final_accuracy(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median run's accuracy after the last epoch, for each learning rate."""
    return np.median(curves[:, :, -1], axis=1)


def epochs_to_target(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median run's epochs to the target for each learning rate, inf if it missed it."""
    reached = curves >= TARGET
    epochs = np.where(reached.any(axis=2), reached.argmax(axis=2) + 1, np.inf)
    return np.median(epochs, axis=1)


def count_or_never(epochs: float) -> str:
    return f"{epochs:.0f}" if np.isfinite(epochs) else "never"


def print_table(results: Results) -> None:
    print(f"\n{'learning':<12}" + "".join(f"{variant.name:>21}" for variant in results))
    print(f"{'rate':<12}" + f"{'accuracy':>13}{f'to {TARGET:.0%}':>8}" * len(results))
    final = [final_accuracy(curves) for curves in results.values()]
    epochs = [epochs_to_target(curves) for curves in results.values()]
    for i, rate in enumerate(LEARNING_RATES):
        line = f"{rate:<12.2g}"
        for accuracies, counts in zip(final, epochs, strict=True):
            line += f"{accuracies[i]:>13.1%}{count_or_never(counts[i]):>8}"
        print(line)
    print(f"Test accuracy at the end, and epochs to {TARGET:.0%}: the median of {len(SEEDS)} runs.")


def rates_that_train(curves: NDArray[np.float64]) -> str:
    rates = np.array(LEARNING_RATES)[final_accuracy(curves) >= TARGET]
    if len(rates) == 0:
        return "none"
    return f"{rates[0]:.2g}-{rates[-1]:.2g} ({len(rates)} of {len(LEARNING_RATES)})"


def conclusion(results: Results) -> str:
    """Return in one sentence what batch normalization changed."""
    rates = [rates_that_train(curves) for curves in results.values()]
    soonest = [count_or_never(epochs_to_target(curves).min()) for curves in results.values()]
    raw, scaled, scaled_norm, raw_norm = zip(rates, soonest, strict=True)
    return (
        f"With batch normalization the learning rates that end at {TARGET:.0%} or above went from"
        f" {scaled[0]} to {scaled_norm[0]} on scaled pixels and from {raw[0]} to {raw_norm[0]} on"
        f" raw ones, and the fewest epochs to {TARGET:.0%} from {scaled[1]} to {scaled_norm[1]} and"
        f" from {raw[1]} to {raw_norm[1]}."
    )


def draw_target(axes: Axes) -> None:
    set_accuracy_axis(axes, [0.1, 0.5, 0.8, 0.9, TARGET, 0.98])
    axes.set_ylim(0.06, 0.987)
    axes.axhline(TARGET, color="black", linewidth=0.8, linestyle="--")


def draw_curves(axes: Axes, curves: NDArray[np.float64], colors: ScalarMappable) -> None:
    """Draw the median run's accuracy against the epoch, one line for each learning rate."""
    draw_target(axes)
    epochs = np.arange(1, curves.shape[2] + 1)
    for rate, accuracies in zip(LEARNING_RATES, np.median(curves, axis=1), strict=True):
        axes.plot(epochs, accuracies, color=colors.to_rgba(rate))
    axes.set_xlabel("epoch")


def draw_final(axes: Axes, results: Results) -> None:
    """Draw the last accuracy against the learning rate: the median, and worst to best shaded."""
    draw_target(axes)
    for variant, curves in results.items():
        worst, best = curves[:, :, -1].min(axis=1), curves[:, :, -1].max(axis=1)
        axes.fill_between(LEARNING_RATES, worst, best, color=variant.color, alpha=0.2, linewidth=0)
        axes.semilogx(LEARNING_RATES, final_accuracy(curves), "o-", color=variant.color)
    axes.set_xlabel("learning rate")


def draw_epochs(axes: Axes, results: Results) -> None:
    """Draw the epochs to the target against the learning rate, where the median run gets there."""
    for variant, curves in results.items():
        epochs = epochs_to_target(curves)
        axes.semilogx(LEARNING_RATES, epochs, "o-", color=variant.color, label=variant.name)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.set(xlabel="learning rate", ylabel="epochs")
    axes.legend(frameon=False)


def save_picture(results: Results, path: Path) -> None:
    figure = Figure(figsize=(13, 8), layout="constrained", dpi=120)
    top, bottom = figure.subfigures(2, 1, squeeze=False).flat
    panels = top.subplots(1, len(results), sharey=True)
    colors = ScalarMappable(LogNorm(LEARNING_RATES[0], LEARNING_RATES[-1]), "turbo")
    top.colorbar(colors, ax=panels, label="learning rate")
    for axes, (variant, curves) in zip(panels, results.items(), strict=True):
        draw_curves(axes, curves, colors)
        style(axes, variant.name, color=variant.color)
        axes.label_outer()

    final, epochs = bottom.subplots(1, 2, sharex=True)
    draw_final(final, results)
    style(final, "accuracy after the last epoch")
    draw_epochs(epochs, results)
    style(epochs, f"epochs to {TARGET:.0%}")
    figure.savefig(path)


def save_and_reload(
    network: Network, variant: Variant, x_test: NDArray[np.float32], path: Path
) -> None:
    """Save the layers, load them into a fresh network, and compare what both predict."""
    network.save(path)
    restored = variant.build(np.random.default_rng())
    restored.load(path)
    for each in (network, restored):
        each.set_training(False)
    if not np.array_equal(network(x_test), restored(x_test)):
        raise RuntimeError(f"the network loaded from {path} predicts something else")


def main() -> None:
    arguments = example_parser(__doc__, epochs=20).parse_args()
    picture = picture_path(arguments.out, "digits")
    layers = picture.with_suffix(".npz")

    use_one_thread()
    digits = load_digits()
    results = sweep(digits, arguments.epochs)
    print_table(results)
    save_picture(results, picture)

    variant = VARIANTS[-1]
    rate = LEARNING_RATES[final_accuracy(results[variant]).argmax()]
    network, _ = train(variant, digits, rate, SEEDS[0], arguments.epochs)
    save_and_reload(network, variant, digits.rows(variant)[1], layers)
    print(f"Picture: {picture}")
    print(f"Layers:  {layers} ({variant.name}), loaded again with the same predictions")
    print(f"\n{conclusion(results)}")


if __name__ == "__main__":
    main()
