"""Tables in Markdown, and the whole run in JSON."""

import json
from dataclasses import asdict

from bench.compare.catalog import LIMIT, column_title
from bench.compare.claims import judge
from bench.compare.results import Key

# Arrays of x's size that a call reads and writes.
_ARRAYS_MOVED = {"training": 2, "inference": 2, "backward": 3}
_FLAT_FROM = 10_000_000
# What the summary shows: direction, system, variant.
_SUMMARY = (
    ("training", "cybn", "fresh"),
    ("training", "torch", "fresh"),
    ("training", "onednn", "out"),
    ("training", "jax", "fresh"),
    ("training", LIMIT, "out"),
    ("inference", "torch", "fresh"),
    ("inference", "onnxruntime", "fresh"),
    ("backward", "torch", "fresh"),
)


def to_json(results, command, machine):
    """The whole run; `machine` is the machine's description."""
    content = {
        "command": command,
        "machine": machine,
        "memory": results.memory,
        "cells": [asdict(cell) for cell in results.cells.values()],
        "configurations": results.configurations,
        "notes": results.notes,
        "measurements": results.records(),
    }
    return json.dumps(content, indent=1) + "\n"


def panel_title(results, panel):
    threads, dtype, direction = panel
    return f"{direction.replace('_', ' ')}, {_setting(results, threads, dtype)}"


def _setting(results, threads, dtype):
    return f"{results.memory}, {dtype}, {threads} thread{'s' if threads > 1 else ''}"


def summaries(results):
    """A summary table, for each thread count and dtype, of what was measured of it."""
    settings = dict.fromkeys(panel[:2] for panel in results.panels())
    return "\n\n".join(_summary(results, *setting) for setting in settings)


def ratio_tables(results):
    """For each panel: cybn's time, and the peers' times over it, cell by cell.

    A peer with a fresh result is compared with cybn's fresh result, a peer with `out=`
    with cybn's `out=`. Bold: cybn loses.
    """
    return "\n\n".join(_panel(results, panel, _ratio_cell) for panel in results.panels())


def cost_tables(results):
    """For each panel: nanoseconds for each byte that the call must read or write."""
    return "\n\n".join(_panel(results, panel, _cost_cell) for panel in results.panels())


def cost(results, key):
    """Nanoseconds per byte moved, or None."""
    seconds = results.seconds(key)
    moved = results.cells[key.cell].nbytes(key.dtype) * _ARRAYS_MOVED[key.direction]
    return None if seconds is None else 1e9 * seconds / moved


def claims_table(results):
    """What the project sets itself, and what this run shows."""
    header = ["time of … over cybn's", "threads", "geomean", "worst", "worst cell", "holds"]
    rows = []
    for threads in results.values("threads"):
        for verdict in judge(results, threads):
            claim = verdict.claim
            geomean = _with_goal(verdict.geomean, verdict.geomean_goal)
            worst = _with_goal(verdict.worst, verdict.worst_goal)
            holds = {True: "yes", False: "**no**", None: "-"}[verdict.holds]
            rows.append([claim.text, str(threads), geomean, worst, verdict.worst_case, holds])
    return f"### {results.memory}: the goals\n\n{markdown(header, rows)}"


def _with_goal(value, goal):
    return f"{value:.2f}" + ("" if goal is None else f" (≥ {goal})")


def flatness(results):
    """How far cybn's cost per byte varies over the large cells of a sweep."""
    lines = []
    large = [name for name, cell in results.cells.items() if cell.size >= _FLAT_FROM]
    for panel in results.panels():
        for variant in (v for system, v in results.columns(panel) if system == "cybn"):
            keys = (Key(*panel, name, "cybn", variant) for name in large)
            costs = [c for c in (cost(results, key) for key in keys) if c is not None]
            if costs:
                spread = max(costs) / min(costs)
                title = f"{column_title('cybn', variant)}, {panel_title(results, panel)}"
                lines.append(f"{title}: from 1e7 elements up within {spread:.2f}x (≤ 1.5)")
    return "\n".join(lines)


def _panel(results, panel, cell_text):
    columns = [(*panel, *column) for column in results.columns(panel)]
    header = [column_title(system, variant) for *_, system, variant in columns]
    return f"### {panel_title(results, panel)}\n\n{_table(results, header, columns, cell_text)}"


def _summary(results, threads, dtype):
    header, columns = [], []
    for direction, *column in _SUMMARY:
        panel = threads, dtype, direction
        if tuple(column) in results.columns(panel):
            first_peer = direction == "training" and column[0] != "cybn"
            header.append(column_title(*column) + ("" if first_peer else f", {direction}"))
            columns.append((*panel, *column))
    title = f"### Summary, {_setting(results, threads, dtype)}"
    return f"{title}\n\n{_table(results, header, columns, _ratio_cell)}"


def _table(results, header, columns, cell_text):
    """A row for each cell; a column is a key without the cell."""
    rows = []
    for name in results.cells:
        keys = (Key(*column[:3], name, *column[3:]) for column in columns)
        rows.append([name, *(cell_text(results, key) for key in keys)])
    return markdown(["cell", *header], rows)


def _ratio_cell(results, key):
    if key.system == "cybn":
        seconds = results.seconds(key)
        return "-" if seconds is None else _microseconds(seconds)
    ratio = results.ratio(key)
    if ratio is None:
        return "-"
    return f"**{ratio:.2f}**" if ratio < 1 else f"{ratio:.2f}"


def _microseconds(seconds):
    """Three digits, or all of those before the point."""
    microseconds = 1e6 * seconds
    return f"{microseconds:,.0f} µs" if microseconds >= 100 else f"{microseconds:.3g} µs"


def _cost_cell(results, key):
    value = cost(results, key)
    return "-" if value is None else f"{value:.4f}"


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
