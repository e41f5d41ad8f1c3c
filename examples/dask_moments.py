"""
Statistics of a Zarr data set on a Dask cluster
===============================================

Two Dask workers write a data set of weather fields, which is larger than each one's memory, as
Zarr. Then they take the mean and the deviation of each field with `cybn.dask.moments`, with
progress bars. ``python examples/dask_moments.py`` (first: ``pip install ".[dask,examples]"``)
compares time and digits with Dask's own ``mean`` and ``std`` and with NumPy's, and leaves a picture
in the folder ``results``.

.. image:: /images/dask_moments.png

* cybn is the fastest, although reading takes a good part of the time: one pass gives both.
* Dask's results are float32, as the data are. Asked for float64, they are as exact as cybn's.
* NumPy, in one process, loads all of the data, and its float32 sums lose digits where values are
  far from 0, as those of the pressure.
"""

# sphinx_gallery_thumbnail_path = "images/dask_moments.png"

import tempfile
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import dask.array as da
import numpy as np
import zarr
from _output import example_parser, picture_path, style
from dask.base import compute, persist
from distributed import Client, LocalCluster, progress
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import cybn.dask

FIELDS = {  # a value is lowest + k * unit, for an int k below 65536: float32 has it exactly
    "temperature": (250.0, 1 / 1024),
    "pressure": (98_000.0, 1 / 16),
    "humidity": (0.0, 1 / 65536),
    "wind": (-32.0, 1 / 1024),
}
LOWEST, UNIT = np.array(list(FIELDS.values()), np.float32).T[..., None, None]
HEIGHT, WIDTH = 180, 360  # a value a degree
DAYS_OF_A_CHUNK = 16
OVER_ALL_BUT_FIELDS = 0, 2, 3
MEGABYTE = 1 << 20
WORKERS, MEMORY_OF_A_WORKER = 2, 512 * MEGABYTE

DaskArray: TypeAlias = Any  # few of its methods have types
Statistics: TypeAlias = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]


class Result(NamedTuple):
    """What a library found, in how many seconds, and the relative errors for each field."""

    statistics: Statistics
    seconds: float
    errors: NDArray[np.float64]


def made_days(block_id: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the fields of some days: (days, fields, height, width)."""
    shape = DAYS_OF_A_CHUNK, len(FIELDS), HEIGHT, WIDTH
    k = np.random.default_rng(block_id).normal(30_000, 5_000, shape)
    return np.asarray(LOWEST + np.clip(k, 0, 65_535).astype(np.uint16) * UNIT, np.float32)


def write(path: Path, megabytes: int) -> None:
    """Let the workers write a data set of about this size."""
    bytes_of_a_chunk = 4 * DAYS_OF_A_CHUNK * len(FIELDS) * HEIGHT * WIDTH
    chunks = max(2, round(megabytes * MEGABYTE / bytes_of_a_chunk))
    days = da.map_blocks(
        made_days,
        chunks=((DAYS_OF_A_CHUNK,) * chunks, len(FIELDS), HEIGHT, WIDTH),
        meta=np.empty((0, 0, 0, 0), np.float32),
    )
    computed("writing", days.to_zarr(path, compute=False))


def computed(doing: str, *lazy: Any) -> Any:
    """Return what Dask makes of lazy objects, with a progress bar."""
    print(f"\n{doing}")
    futures = persist(*lazy)  # on the workers, in the background
    progress(futures, notebook=False)
    return compute(*futures)


def by_cybn(data: DaskArray, path: Path) -> Statistics:
    moments = cybn.dask.moments(data)
    mean, std = computed("cybn", moments.mean, moments.std())
    return mean, std


def by_dask(data: DaskArray, path: Path) -> Statistics:
    mean, std = computed("Dask", data.mean(OVER_ALL_BUT_FIELDS), data.std(OVER_ALL_BUT_FIELDS))
    return mean, std


def by_dask_in_float64(data: DaskArray, path: Path) -> Statistics:
    options = {"axis": OVER_ALL_BUT_FIELDS, "dtype": np.float64}
    mean, std = computed("Dask, float64", data.mean(**options), data.std(**options))
    return mean, std


def by_numpy(data: DaskArray, path: Path) -> Statistics:
    """Load all of it into this process."""
    print("\nNumPy")
    x = np.asarray(zarr.open_array(path, mode="r")[:])
    return x.mean(OVER_ALL_BUT_FIELDS), x.std(OVER_ALL_BUT_FIELDS)


LIBRARIES: dict[str, Callable[[DaskArray, Path], Statistics]] = {
    "cybn": by_cybn,
    "Dask": by_dask,
    "Dask, float64": by_dask_in_float64,
    "NumPy": by_numpy,
}


def sums_of_a_chunk(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the sums of k and of k**2 for each field, in integers."""
    k = np.rint((x - LOWEST) / UNIT).astype(np.int64)
    return np.stack([(k**power).sum(OVER_ALL_BUT_FIELDS) for power in (1, 2)])[None, ..., None]


def exact_statistics(data: DaskArray) -> Statistics:
    """Return mean and deviation of each field, from sums of integers."""
    chunks = (1,) * data.numblocks[0], 2, len(FIELDS), 1
    sums = data.map_blocks(sums_of_a_chunk, chunks=chunks, meta=np.empty((0,) * 4, np.int64))
    (all_sums,) = computed("exact", sums.sum(axis=(0, 3)))
    n = data.size // len(FIELDS)
    mean, std = np.empty((2, len(FIELDS)))
    for i, (lowest, unit) in enumerate(FIELDS.values()):
        of_k, of_squares = (Fraction(int(each), n) for each in all_sums[:, i])
        mean[i] = Fraction(lowest) + of_k * Fraction(unit)
        std[i] = unit * float(of_squares - of_k**2) ** 0.5
    return mean, std


def measure(data: DaskArray, path: Path) -> dict[str, Result]:
    exact = exact_statistics(data)
    results = {}
    for name, library in LIBRARIES.items():
        start = time.perf_counter()
        statistics = library(data, path)
        seconds = time.perf_counter() - start
        # An error of the mean counts in deviations, as it would after standardizing.
        errors = np.abs(np.subtract(statistics, exact, dtype=np.float64)) / exact[1]
        results[name] = Result(statistics, seconds, errors.max(axis=0))
    return results


def print_table(results: Mapping[str, Result]) -> None:
    print(
        f"\n{'':<15}" + "".join(f"{name:>22}" for name in FIELDS) + f"{'seconds':>10}{'error':>10}"
    )
    for name, result in results.items():
        values = "".join(f"{m:>13.3f}{d:>9.4f}" for m, d in np.transpose(result.statistics))
        print(f"{name:<15}{values}{result.seconds:>10.1f}{result.errors.max():>10.0e}")
    print("Mean and deviation of each field; the largest error in deviations.")


def draw_seconds(axes: Axes, results: Mapping[str, Result]) -> None:
    seconds = [result.seconds for result in results.values()]
    axes.barh(list(results), seconds, color=["#00798c", *["#b0b0b0"] * (len(results) - 1)])
    axes.invert_yaxis()
    axes.set_xlabel("seconds, with reading")
    style(axes, "Time")
    axes.grid(axis="x", color="#e6e6e6")


def draw_errors(axes: Axes, results: Mapping[str, Result]) -> None:
    colors = "#d1495b", "#2f6db5", "#3c9d4e", "#edae49"
    smallest = np.finfo(np.float64).eps / 2
    for i, (field, color) in enumerate(zip(FIELDS, colors, strict=True)):
        errors = [max(result.errors[i], smallest) for result in results.values()]
        axes.plot(errors, list(results), "o", color=color, label=field, alpha=0.8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlim=(smallest / 3, 10), xlabel="largest error, in deviations")
    axes.legend(frameon=False, loc="upper right")
    style(axes, "Error of mean and deviation")


def save_picture(results: Mapping[str, Result], path: Path) -> None:
    figure = Figure(figsize=(10, 3.6), layout="constrained", dpi=120)
    left, right = figure.subplots(1, 2)
    draw_seconds(left, results)
    draw_errors(right, results)
    figure.savefig(path)


def conclusion(results: Mapping[str, Result], data: DaskArray) -> str:
    """Return in one sentence what the data set and the libraries were like."""
    ours, theirs = results["cybn"], results["Dask"]
    return (
        f"From {data.nbytes / MEGABYTE:.0f} MB in {data.npartitions} chunks, on workers with"
        f" {MEMORY_OF_A_WORKER / MEGABYTE:.0f} MB each, cybn needed {ours.seconds:.1f} s for a"
        f" largest error of {ours.errors.max():.0e} deviations, and Dask's own mean and std"
        f" {theirs.seconds:.1f} s for one of {theirs.errors.max():.0e}."
    )


def main() -> None:
    arguments = example_parser(__doc__, megabytes=1024).parse_args()
    picture = picture_path(arguments.out, "dask_moments")
    cluster = LocalCluster(
        n_workers=WORKERS,
        threads_per_worker=1,
        memory_limit=MEMORY_OF_A_WORKER,
        dashboard_address=":0",
    )
    with tempfile.TemporaryDirectory() as folder, cluster, Client(cluster):
        path = Path(folder, "weather.zarr")
        write(path, arguments.megabytes)
        data = da.from_zarr(path)
        results = measure(data, path)
    print_table(results)
    save_picture(results, picture)
    print(f"Picture: {picture}")
    print(f"\n{conclusion(results, data)}")


if __name__ == "__main__":
    main()
