"""Pictures of a run: ratios for each cell, or cost per byte over a sweep."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.compare.catalog import LIMIT, SYSTEMS, column_title
from bench.compare.report import cost, panel_title
from bench.compare.results import Key

_MARKERS = {"fresh": "o", "out": "x"}


def draw_ratios(results, path):
    """Draw the peers' times over cybn's, cell by cell, with cybn as the line at 1."""
    positions = {name: place for place, name in enumerate(results.cells)}

    def finish(axes):
        axes.axhline(1, color="black", linewidth=1)
        axes.set_xticks(range(len(positions)), list(positions), rotation=90, fontsize=7)
        axes.set_ylabel("time / cybn's time")

    def ratio(key):
        return None if key.system == "cybn" else results.ratio(key)

    _draw(results, path, positions, ratio, finish, linestyle="none")


def draw_costs(results, path):
    """Draw nanoseconds per byte over the number of elements."""
    positions = {name: cell.size for name, cell in results.cells.items()}

    def finish(axes):
        axes.set_xscale("log")
        axes.set_xlabel("elements")
        axes.set_ylabel("ns per byte")

    _draw(results, path, positions, lambda key: cost(results, key), finish, linestyle="-")


def _draw(results, path, positions, value, finish, linestyle):
    """One panel for each direction (down) and each thread count and dtype (across)."""
    panels = results.panels()
    down = len(results.values("direction"))
    across = len(panels) // down
    figure, grid = plt.subplots(
        down,
        across,
        figsize=(8 * across, 4.5 * down),
        squeeze=False,
        sharex=True,
        sharey="row",
        layout="constrained",
    )
    for panel, axes in zip(panels, grid.T.flat, strict=True):
        for column in results.columns(panel):
            values = {name: value(Key(*panel, name, *column)) for name in positions}
            _series(axes, column, positions, values, linestyle)
        finish(axes)
        axes.set_yscale("log")
        axes.set_title(panel_title(results, panel))
        axes.grid(alpha=0.3)
    _legend(figure)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _legend(figure):
    """One legend for all panels: they do not all have the same systems."""
    named = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    columns = int(figure.get_figwidth() // 2.5)
    figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=columns)


def _colour(system):
    """Black for the limit; the ten usual colours, and for what is added light ones."""
    if system == LIMIT:
        return "black"
    place = list(SYSTEMS).index(system)
    return f"C{place}" if place < 10 else plt.colormaps["tab20"](2 * (place % 10) + 1)


def _series(axes, column, positions, values, linestyle):
    """Draw one system's values where it has any; a colour for each system."""
    system, variant = column
    points = [(positions[name], value) for name, value in values.items() if value is not None]
    if points:
        axes.plot(
            *zip(*points, strict=True),
            marker=_MARKERS[variant],
            color=_colour(system),
            linestyle=linestyle,
            label=column_title(system, variant).replace("`", ""),
        )
