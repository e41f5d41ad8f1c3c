"""What the examples share: their options, and how a picture looks."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray


def example_parser(doc: str | None, **numbers: int) -> argparse.ArgumentParser:
    """Return a parser with the title of an example's docstring, and the option ``--out``.

    Each of `numbers` is an option, too, with its default: a positive integer.
    """
    parser = argparse.ArgumentParser(description=(doc or "").strip().partition("\n")[0])
    for name, default in numbers.items():
        text = f"a positive number (default {default})"
        parser.add_argument(f"--{name}", type=positive, default=default, help=text)
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the results")
    return parser


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def picture_path(folder: Path, name: str) -> Path:
    """Return where to save a picture; makes the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.png"


def print_accuracies(
    corner: str, rows: Iterable[object], results: Mapping[str, NDArray[np.float64]]
) -> None:
    """Print the means of accuracies of shape (rows, runs): a column for each name in `results`."""
    width = 2 + max(map(len, results))
    print(f"\n{corner:<17}" + "".join(f"{name:>{width}}" for name in results))
    means = np.transpose([accuracies.mean(axis=1) for accuracies in results.values()])
    for row, values in zip(rows, means, strict=True):
        print(f"{row:<17}" + "".join(f"{value:>{width}.1%}" for value in values))
    runs = next(iter(results.values())).shape[1]
    print(f"Test accuracy, the mean of {runs} runs.")


def style(axes: Axes, title: str, **font: Any) -> None:
    axes.set_title(title, loc="left", fontweight="bold", **font)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)


def draw_runs(axes: Axes, x: ArrayLike, runs: NDArray[np.float64], color: str, label: str) -> None:
    """Draw the mean of runs of shape (len(x), runs) as a line, and each run as a dot."""
    axes.plot(x, runs, ".", color=color, alpha=0.35, markersize=5, markeredgewidth=0)
    axes.plot(x, runs.mean(axis=1), "o-", color=color, label=label, markersize=5)


def set_accuracy_axis(axes: Axes, ticks: Sequence[float]) -> None:
    """Show accuracies with room for the last percents, where good runs differ."""
    axes.set_yscale("logit")
    axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_ylabel("test accuracy")
