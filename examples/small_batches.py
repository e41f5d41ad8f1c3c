"""How well batch, group and layer normalization learn from batches of 2 to 64 digits.

Dense -> norm -> ReLU, twice, and a Dense layer, in plain NumPy, learn scikit-learn's digits with
each norm and with none, for the same number of epochs; the learning rate grows with the batch.
``python examples/small_batches.py`` prints a table and leaves a picture in the folder ``results``.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
from _network import Dense, Network, ReLU, accuracy, scaled_digits, train_epoch
from _output import draw_runs, example_parser, picture_path, set_accuracy_axis, style
from matplotlib.figure import Figure
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
    layer: Callable | None
    color: str


NORMS = (
    Norm("batch norm", cybn.BatchNorm, "#00798c"),
    Norm("group norm", lambda features: cybn.GroupNorm(GROUPS, features), "#e09f1f"),
    Norm("layer norm", cybn.LayerNorm, "#d1495b"),
    Norm("no norm", None, "#8a8a8a"),
)


def build(norm, rng):
    layers = []
    for inputs in (PIXELS, HIDDEN):
        layers.append(Dense(inputs, HIDDEN, rng))
        if norm.layer is not None:
            layers.append(norm.layer(HIDDEN))
        layers.append(ReLU())
    return Network(*layers, Dense(HIDDEN, CLASSES, rng))


def run(norm, digits, batch_size, seed, epochs):
    """Train a network, and return its accuracy on the test digits."""
    x_train, x_test, labels_train, labels_test = digits
    rng = np.random.default_rng(seed)
    network = build(norm, rng)
    for _ in range(epochs):
        rate = RATE_PER_ROW * batch_size
        train_epoch(network, x_train, labels_train, batch_size, rate, rng)
    return accuracy(network, x_test, labels_test)


def sweep(digits, epochs):
    """Return the accuracies for each norm, of shape (batch sizes, seeds)."""
    results = {norm: np.empty((len(BATCH_SIZES), len(SEEDS))) for norm in NORMS}
    runs = list(product(NORMS, enumerate(BATCH_SIZES), enumerate(SEEDS)))
    for norm, (i, batch_size), (j, seed) in tqdm(runs, desc="training", unit="run"):
        results[norm][i, j] = run(norm, digits, batch_size, seed, epochs)
    return results


def print_table(results):
    print(f"\n{'batch size':<12}" + "".join(f"{norm.name:>12}" for norm in results))
    means = np.transpose([accuracies.mean(axis=1) for accuracies in results.values()])
    for batch_size, row in zip(BATCH_SIZES, means, strict=True):
        print(f"{batch_size:<12}" + "".join(f"{mean:>12.1%}" for mean in row))
    print(f"Test accuracy, the mean of {len(SEEDS)} runs.")


def conclusion(results):
    """Return in one sentence what small batches do to each norm."""
    means = {norm.name: accuracies.mean(axis=1) for norm, accuracies in results.items()}
    lost = {name: 100 * (values.max() - values[0]) for name, values in means.items()}
    of_batch_norm = means["batch norm"]
    best = max(means, key=lambda name: means[name].max())
    others = [f"{points:.1f} ({name})" for name, points in lost.items() if name != "batch norm"]
    return (
        f"With batches of {BATCH_SIZES[0]} batch norm ends at {of_batch_norm[0]:.1%}, which is"
        f" {lost['batch norm']:.1f} points below what it reaches with batches of"
        f" {BATCH_SIZES[of_batch_norm.argmax()]}; the others, which do not look at the batch, lose"
        f" {', '.join(others)}; the best accuracy, {means[best].max():.1%}, is that of {best}."
    )


def save_picture(results, path):
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


def main():
    arguments = example_parser(__doc__, epochs=6).parse_args()
    picture = picture_path(arguments.out, "small_batches")

    # NumPy's matrix products have threads of their own, which on few cores would wait for cybn's.
    cybn.set_num_threads(1)
    results = sweep(scaled_digits(seed=0), arguments.epochs)
    print_table(results)
    save_picture(results, picture)
    print(f"Picture: {picture}")
    print(f"\n{conclusion(results)}")


if __name__ == "__main__":
    main()
