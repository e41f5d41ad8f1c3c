"""
Masked sequences in a recurrent network
=======================================

A sequence is one to five of scikit-learn's handwritten digits, padded with empty ones. The network,
in plain NumPy, reads one after the other, ``h = tanh(norm(x @ weight) + h @ recurrent)``, and then
tells which was the largest. Its norm masks the padding, or counts it, or there is no norm. After
training, the statistics are taken anew from sequences with more padding. ``python
examples/sequence.py`` prints a table and leaves a picture in the folder ``results``.

.. image:: /images/sequence.png

Both norms help. But the norm that counts the padding depends on how much there is of it; the
masked one does not.
"""

# sphinx_gallery_thumbnail_path = "images/sequence.png"

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from _network import (
    Dense,
    Digits,
    FloatArray,
    IntArray,
    Network,
    accuracy,
    train_epoch,
    unit_digits,
    use_one_thread,
)
from _output import draw_runs, example_parser, picture_path, print_accuracies, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from tqdm import tqdm

import cybn

PIXELS, HIDDEN, CLASSES = 64, 64, 10
LONGEST, PADDED_TO = 5, (5, 10, 20, 40)
TRAINING, TEST = 4000, 2000
BATCH_SIZE, LEARNING_RATE = 50, 0.5
SEEDS = range(5)


class Kind(NamedTuple):
    """What normalizes the input of the recurrence."""

    name: str
    normalized: bool
    masked: bool
    color: str


KINDS = (
    Kind("padding masked", True, True, "#00798c"),
    Kind("padding counted", True, False, "#d1495b"),
    Kind("no norm", False, False, "#8a8a8a"),
)
# What `run` returns, of all seeds.
Results: TypeAlias = Mapping[Kind, tuple[NDArray[np.float64], NDArray[np.float64]]]


@dataclass(frozen=True)
class Sequences:
    """Digits of shape (sequences, steps, pixels), and the steps that are no padding."""

    x: NDArray[np.float32]
    where: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> "Sequences":
        return Sequences(self.x[rows], self.where[rows])

    def padded(self, steps: int) -> "Sequences":
        """Return the same sequences with more padding."""
        more = (0, 0), (0, steps - self.x.shape[1]), (0, 0)
        return Sequences(np.pad(self.x, more), np.pad(self.where, more))


class Recurrence:
    """``h = tanh(x[:, step] + h @ weight + bias)``, from step to step but for the padding."""

    def __init__(self, features: int, rng: np.random.Generator) -> None:
        orthogonal, _ = np.linalg.qr(rng.normal(size=(features, features)))
        self.weight = orthogonal.astype(np.float32)
        self.bias = np.zeros(features, np.float32)

    def __call__(self, x: FloatArray, where: NDArray[np.bool_]) -> FloatArray:
        """Return h after the last step of each sequence."""
        self.where = where
        h = np.zeros((len(x), x.shape[2]), np.float32)
        self.before: list[FloatArray] = []
        self.after: list[FloatArray] = []
        for step in range(LONGEST):
            self.before.append(h)
            self.after.append(np.tanh(x[:, step] + h @ self.weight + self.bias))
            h = np.where(where[:, step], self.after[-1], h)
        return h

    def backward(self, dh: FloatArray) -> FloatArray:
        dx = np.zeros((*self.where.shape[:2], dh.shape[1]), np.float32)
        self.dweight = np.zeros_like(self.weight)
        for step in reversed(range(LONGEST)):
            selected = self.where[:, step]
            dx[:, step] = np.where(selected, dh * (1 - self.after[step] ** 2), 0)
            self.dweight += self.before[step].T @ dx[:, step]
            dh = np.where(selected, dx[:, step] @ self.weight.T, dh)
        self.dbias = dx.sum(axis=(0, 1))
        return dx


class Reader(Network):
    """Dense -> norm -> recurrence -> Dense."""

    def __init__(self, kind: Kind, rng: np.random.Generator) -> None:
        self.kind = kind
        self.dense, self.readout = Dense(PIXELS, HIDDEN, rng), Dense(HIDDEN, CLASSES, rng)
        self.recurrence = Recurrence(HIDDEN, rng)
        # One statistic for each feature, over sequences and time.
        self.norms = [cybn.BatchNorm(HIDDEN, axis=2)] if kind.normalized else []
        super().__init__(self.dense, *self.norms, self.recurrence, self.readout)

    def __call__(self, sequences: Sequences) -> FloatArray:
        x = self.dense(sequences.x)
        for norm in self.norms:
            x = norm(x, where=sequences.where if self.kind.masked else None)
        return self.readout(self.recurrence(x, sequences.where))


def draw_sequences(
    x: NDArray[np.float32], labels: IntArray, count: int, rng: np.random.Generator
) -> tuple[Sequences, IntArray]:
    """Return sequences of digits, and the largest digit of each."""
    drawn = rng.integers(len(x), size=(count, LONGEST))
    where = np.arange(LONGEST) < rng.integers(1, LONGEST + 1, count)[:, None]
    largest = np.where(where, labels[drawn], -1).max(axis=1)
    return Sequences(x[drawn] * where[..., None], where[..., None]), largest


def calibrate(network: Reader, sequences: Sequences) -> None:
    """Take the statistics of the network's norm anew."""
    for norm in network.norms:
        with cybn.calibrate(norm):
            for start in range(0, len(sequences), BATCH_SIZE):
                network(sequences[start : start + BATCH_SIZE])


def run(kind: Kind, digits: Digits, seed: int, epochs: int) -> tuple[list[float], list[float]]:
    """Train a network; return its accuracy after each epoch, and with each padding after that."""
    x_train, x_test, labels_train, labels_test = digits
    rng = np.random.default_rng(seed)
    train, train_largest = draw_sequences(x_train, labels_train, TRAINING, rng)
    test = draw_sequences(x_test, labels_test, TEST, rng)
    network = Reader(kind, rng)
    learned, calibrated = [], []
    for epoch in range(epochs):
        rate = LEARNING_RATE * (1 - epoch / epochs)
        train_epoch(network, train, train_largest, BATCH_SIZE, rate, rng)
        learned.append(accuracy(network, *test))
    for steps in PADDED_TO:
        calibrate(network, train.padded(steps))
        calibrated.append(accuracy(network, *test))
    return learned, calibrated


def sweep(digits: Digits, epochs: int) -> Results:
    """Return for each kind what `run` does, of shapes (epochs, seeds) and (paddings, seeds)."""
    results = {
        kind: (np.empty((epochs, len(SEEDS))), np.empty((len(PADDED_TO), len(SEEDS))))
        for kind in KINDS
    }
    runs = list(product(KINDS, enumerate(SEEDS)))
    for kind, (j, seed) in tqdm(runs, desc="training", unit="run"):
        learned, calibrated = results[kind]
        learned[:, j], calibrated[:, j] = run(kind, digits, seed, epochs)
    return results


def print_table(results: Results) -> None:
    rows = ["training", *(f"{steps} steps" for steps in PADDED_TO)]
    accuracies = {
        kind.name: np.vstack([learned[-1], calibrated])
        for kind, (learned, calibrated) in results.items()
    }
    print_accuracies("statistics from", rows, accuracies)


def conclusion(results: Results) -> str:
    """Return in one sentence what masking changes."""
    learned = [learned[-1].mean() for learned, _ in results.values()]
    masked, counted, _ = (calibrated.mean(axis=1) for _, calibrated in results.values())
    return (
        f"A norm brings the network from {learned[2]:.1%} to {learned[0]:.1%} with the padding"
        f" masked and to {learned[1]:.1%} with the padding counted; but when its statistics are"
        f" taken anew from the same sequences, padded to {PADDED_TO[-1]} steps, the norm that"
        f" counts the padding falls to {counted[-1]:.1%}, and the masked one is at"
        f" {masked[-1]:.1%}."
    )


def draw_examples(panels: Sequence[Axes], digits: Digits) -> None:
    """Draw some test sequences with what the network has to tell."""
    _, x_test, _, labels_test = digits
    rng = np.random.default_rng(4)
    sequences, largest = draw_sequences(x_test, labels_test, len(panels), rng)
    for axes, steps, label in zip(panels, sequences.x, largest, strict=True):
        axes.imshow(np.hstack(steps.reshape(-1, 8, 8)), cmap="gray_r")
        axes.set_title(f"largest: {label}", fontsize="medium")
        axes.set_xticks(np.arange(LONGEST) * 8 - 0.5, [])
        axes.set_yticks([])


def draw_panels(left: Axes, right: Axes, results: Results) -> None:
    for kind, (learned, calibrated) in results.items():
        draw_runs(left, np.arange(1, len(learned) + 1), learned, kind.color, kind.name)
        draw_runs(right, PADDED_TO, calibrated, kind.color, kind.name)
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    left.set(xlabel="epoch", ylabel="test accuracy")
    left.legend(frameon=False, loc="lower right")
    right.set_xscale("log", base=2)
    right.set_xticks(PADDED_TO, [f"{steps}" for steps in PADDED_TO])
    right.set_xlabel("steps with padding")
    style(left, "Training")
    style(right, "New statistics, more padding")


def save_picture(results: Results, digits: Digits, path: Path) -> None:
    figure = Figure(figsize=(9, 5.5), layout="constrained", dpi=120)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 4]).flat
    draw_examples(top.subplots(1, 4), digits)
    left, right = bottom.subplots(1, 2, sharey=True)
    draw_panels(left, right, results)
    figure.savefig(path)


def main() -> None:
    arguments = example_parser(__doc__, epochs=10).parse_args()
    picture = picture_path(arguments.out, "sequence")

    use_one_thread()
    digits = unit_digits(seed=0)
    results = sweep(digits, arguments.epochs)
    print_table(results)
    save_picture(results, digits, picture)
    print(f"Picture: {picture}")
    print(f"\n{conclusion(results)}")


if __name__ == "__main__":
    main()
