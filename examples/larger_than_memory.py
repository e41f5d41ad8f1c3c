"""
Statistics of an array larger than memory
=========================================

Random pieces of the two photographs that scikit-learn brings along fill a file in a temporary
folder. ``numpy.memmap`` reads it a few megabytes at a time, `cybn.moments` gives the statistics of
each part, and ``+`` merges them. ``python examples/larger_than_memory.py`` compares the result with
exact integer sums and with sums in float32, and leaves a picture in the folder ``results``.

.. image:: /images/larger_than_memory.png

The merged moments agree with the exact sums to the last digit or two of a float64. Plain float32
sums keep three or four digits.
"""

# sphinx_gallery_thumbnail_path = "images/larger_than_memory.png"

import math
import tempfile
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from _output import example_parser, picture_path, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images
from tqdm import tqdm

import cybn

SIDE = 128
IMAGES_OF_A_PART = 32
CHANNELS = {"red": "#d1495b", "green": "#3c9d4e", "blue": "#2f6db5"}
MEGABYTE = 1 << 20

# After each part: the mean and the deviation of each channel.
Statistics: TypeAlias = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
History: TypeAlias = list[Statistics]


def write_images(path: Path, megabytes: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Fill a file with crops of the photographs: uint8, (images, height, width, channels)."""
    photographs = load_sample_images().images
    height, width, _ = photographs[0].shape
    image_shape = SIDE, SIDE, len(CHANNELS)
    count = max(1, megabytes * MEGABYTE // math.prod(image_shape))
    images = np.memmap(path, np.uint8, "w+", shape=(count, *image_shape))
    for image in tqdm(images, desc="writing", unit="image"):
        top, left = rng.integers(height - SIDE), rng.integers(width - SIDE)
        photograph = photographs[rng.integers(len(photographs))]
        image[...] = photograph[top : top + SIDE, left : left + SIDE]
    images.flush()
    return images


def parts_of(images: NDArray[np.uint8], doing: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the images part by part, with a progress bar."""
    for start in tqdm(range(0, len(images), IMAGES_OF_A_PART), desc=doing, unit="part"):
        yield images[start : start + IMAGES_OF_A_PART]


def merged_moments(images: NDArray[np.uint8]) -> History:
    """Return mean and deviation of each channel of what was read, after each part."""
    read: cybn.Moments | int = 0
    history: History = []
    for part in parts_of(images, "cybn.moments"):
        read += cybn.moments(part, axis=-1)
        history.append((read.mean, read.std()))
    return history


def float32_sums(images: NDArray[np.uint8]) -> History:
    """Do as `merged_moments`, but as it is often done: E[x^2] - E[x]^2 in float32."""
    (sums, squares), n = np.zeros((2, len(CHANNELS)), np.float32), 0
    history: History = []
    for part in parts_of(images, "float32 sums"):
        x = part.reshape(-1, len(CHANNELS)).astype(np.float32)
        sums += x.sum(axis=0)
        squares += (x * x).sum(axis=0)
        n += len(x)
        mean = sums / np.float32(n)
        history.append((mean, np.sqrt(squares / np.float32(n) - mean**2)))
    return history


def exact_sums(images: NDArray[np.uint8]) -> tuple[History, NDArray[np.int64]]:
    """Do as `merged_moments`, in integers and fractions; return how often each value is there, too.

    The pixels have 256 values, so that it is enough to count them.
    """
    counts = np.zeros((len(CHANNELS), 256), np.int64)
    history: History = []
    for part in parts_of(images, "exact"):
        for channel, values in enumerate(np.moveaxis(part, -1, 0)):
            counts[channel] += np.bincount(values.ravel(), minlength=256)
        means, deviations = np.transpose([exact_statistics(each) for each in counts.tolist()])
        history.append((means, deviations))
    return history, counts


def exact_statistics(counts: Sequence[int]) -> tuple[float, float]:
    """Return the mean and the deviation of values that occur so often."""
    n = sum(counts)
    mean = Fraction(sum(value * count for value, count in enumerate(counts)), n)
    square = Fraction(sum(value**2 * count for value, count in enumerate(counts)), n)
    return float(mean), float(square - mean**2) ** 0.5


def relative_errors(history: History, exact: History) -> NDArray[np.float64]:
    """Return the largest relative error of all channels' statistics after each part."""
    errors = np.abs(np.divide(history, exact) - 1)
    return np.asarray(errors.max(axis=(1, 2)), np.float64)


def print_table(results: Mapping[str, History]) -> None:
    print(f"\n{'':<14}" + "".join(f"{name:>22}" for name in CHANNELS))
    for name, history in results.items():
        statistics = np.transpose(history[-1])
        print(f"{name:<14}" + "".join(f"{m:>12.5f}{d:>10.5f}" for m, d in statistics))
    print("Mean and deviation of each channel.")


def draw_histograms(axes: Axes, counts: NDArray[np.int64]) -> None:
    for color, share in zip(CHANNELS.values(), counts / counts.sum(axis=1)[:, None], strict=True):
        axes.stairs(share, np.arange(257) - 0.5, color=color, linewidth=1.2)
    axes.set(yscale="log", ylabel="share of the pixels")
    style(axes, "The file: crops of two photographs")


def draw_statistics(
    axes: Axes, means: NDArray[np.floating[Any]], deviations: NDArray[np.floating[Any]]
) -> None:
    """Draw for each channel its mean, and a deviation to either side."""
    for i, color in enumerate(CHANNELS.values()):
        axes.errorbar(means[i], -i, xerr=deviations[i], color=color, fmt="o", capsize=3)
    axes.set_yticks(range(0, -len(CHANNELS), -1), CHANNELS)
    axes.set(xlabel="value: mean ± deviation", ylim=(0.7 - len(CHANNELS), 0.7))
    style(axes, "")


def draw_errors(axes: Axes, results: Mapping[str, History], megabytes: float) -> None:
    colors = {"cybn.moments": "#00798c", "float32 sums": "#d1495b"}
    read = np.linspace(0, megabytes, len(results["exact"]) + 1)[1:]
    for name, color in colors.items():
        errors = relative_errors(results[name], results["exact"])
        axes.plot(read, np.maximum(errors, np.finfo(float).eps / 2), color=color, label=name)
    axes.set(yscale="log", ylim=(1e-17, 1), xlabel="MB read", ylabel="largest relative error")
    axes.legend(frameon=False, loc="center right")
    style(axes, "Error of mean and deviation so far")


def save_picture(
    results: Mapping[str, History], counts: NDArray[np.int64], megabytes: float, path: Path
) -> None:
    figure = Figure(figsize=(10, 4.5), layout="constrained", dpi=120)
    left, right = figure.subfigures(1, 2, squeeze=False).flat
    histograms, statistics = left.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    draw_histograms(histograms, counts)
    draw_statistics(statistics, *results["cybn.moments"][-1])
    draw_errors(right.subplots(), results, megabytes)
    figure.savefig(path)


def conclusion(results: Mapping[str, History], megabytes: float, peak: int) -> str:
    """Return in one sentence what merging gives."""
    of_cybn, of_float32 = (
        relative_errors(results[name], results["exact"])[-1]
        for name in ("cybn.moments", "float32 sums")
    )
    return (
        f"From a file of {megabytes:.0f} MB, with {peak / MEGABYTE:.0f} MB of arrays in memory at"
        f" most, the merged moments come out with a relative error of {of_cybn:.0e}, and plain"
        f" sums in float32 with one of {of_float32:.0e}."
    )


def main() -> None:
    arguments = example_parser(__doc__, megabytes=256).parse_args()
    picture = picture_path(arguments.out, "larger_than_memory")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images")
        images = write_images(path, arguments.megabytes, np.random.default_rng(0))
        tracemalloc.start()  # counts what NumPy allocates, not what the file maps
        merged = merged_moments(images)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        exact, counts = exact_sums(images)
        results = {"cybn.moments": merged, "exact": exact, "float32 sums": float32_sums(images)}
        megabytes = images.nbytes / MEGABYTE
        del images  # some systems do not remove a file that is mapped
    print_table(results)
    save_picture(results, counts, megabytes, picture)
    print(f"Picture: {picture}")
    print(f"\n{conclusion(results, megabytes, peak)}")


if __name__ == "__main__":
    main()
