"""Tables in Markdown, and the whole run in JSON."""

import json

from bench.compare.catalog import TITLES
from bench.compare.claims import judge
from bench.compare.results import Key

# Arrays of x's size that a call reads and writes.
_ARRAYS_MOVED = {"training": 2, "inference": 2, "backward": 3}
_FLAT_FROM = 10_000_000


def to_json(results, command, machine):
    """The whole run; `machine` is the machine's description."""
    content = {
        "command": command,
        "machine": machine,
        "configurations": results.configurations,
        "notes": results.notes,
        "measurements": results.records(),
    }
    return json.dumps(content, indent=1) + "\n"


def column_title(system, variant):
    return TITLES[system] + (" `out=`" if variant == "out" else "")


def panel_title(threads, dtype, direction):
    return f"{direction.replace('_', ' ')}, {dtype}, {threads} thread{'s' if threads > 1 else ''}"


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
            geomean = f"{verdict.geomean:.2f} (≥ {claim.geomean})"
            worst = f"{verdict.worst:.2f}" + (f" (≥ {claim.worst})" if claim.worst else "")
            holds = "yes" if verdict.holds else "**no**"
            rows.append([claim.text, str(threads), geomean, worst, verdict.worst_case, holds])
    return _markdown(header, rows)


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
                title = f"{column_title('cybn', variant)}, {panel_title(*panel)}"
                lines.append(f"{title}: from 1e7 elements up within {spread:.2f}x (≤ 1.5)")
    return "\n".join(lines)


def _panel(results, panel, cell_text):
    columns = results.columns(panel)
    rows = []
    for name in results.cells:
        keys = (Key(*panel, name, *column) for column in columns)
        rows.append([name, *(cell_text(results, key) for key in keys)])
    header = ["cell", *(column_title(*column) for column in columns)]
    return f"### {panel_title(*panel)}\n\n{_markdown(header, rows)}"


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


def _markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
