"""Command line of the comparison."""

import argparse
import shlex
import sys
from fnmatch import fnmatch
from pathlib import Path

from bench.cells import CELLS, LAYOUTS, NORM_CELLS, sweep
from bench.compare import picture, report
from bench.compare.catalog import (
    DEFAULT_SYSTEMS,
    DIRECTIONS,
    NORM_DIRECTIONS,
    NORM_MODULES,
    SYSTEMS,
    add_cybn,
)
from bench.compare.cold import count_sets
from bench.compare.machine import describe, memory
from bench.compare.runner import Plan, compare

_ARRAYS_AT_ONCE = 20  # of x's size: a system's own, and those of the check in float64
_ARRAYS_A_SET = 6  # x, dy, the results of two rounds, copies that a system makes of x and dy


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description="Compare cybn with its peers, each system in a process of its own. "
        "CYBN_LEVEL chooses cybn's CPU level.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--cells", nargs="+", default=["*"], metavar="PATTERN", help="as in 'NHWC *' '*7x7'")
    tables = parser.add_mutually_exclusive_group().add_argument
    tables("--norms", action="store_true", help="instead of the table: layer, group, instance norm")
    tables("--sweep", choices=LAYOUTS, help="instead of the table: one shape, 1e3 to 3e8 elements")
    names = ", ".join(SYSTEMS)
    add(
        "--systems", nargs="+", choices=SYSTEMS, default=DEFAULT_SYSTEMS, metavar="NAME", help=names
    )
    add(
        "--also",
        nargs="+",
        type=_another_cybn,
        default=[],
        metavar="NAME=[CHECKOUT][,VARIABLE=VALUE...]",
        help="another cybn: of a checkout that was built, or with other environment variables",
    )
    add("--cold", action="store_true", help="take arrays in turn from more than the caches hold")
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--dtypes", nargs="+", choices=("float32", "float64"), default=["float32"])
    directions = (*DIRECTIONS, *NORM_DIRECTIONS)
    add("--directions", nargs="+", choices=directions, default=directions)
    add("--rounds", type=int, default=5)
    add("--budget", type=float, default=0.1, help="seconds for one measurement in one round")
    add("--output", type=Path, default=Path("bench-results"), help="folder for the results")
    return parser


def _another_cybn(text):
    try:
        return add_cybn(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _chosen_cells(options):
    """Cells that were asked for and that fit the memory."""
    table = NORM_CELLS if options.norms else CELLS
    cells = sweep(options.sweep) if options.sweep else table
    cells = [c for c in cells if any(fnmatch(c.name, pattern) for pattern in options.cells)]
    if not cells:
        raise SystemExit("no cell has such a name")
    chosen = [cell for cell in cells if _fits(cell, options)]
    for cell in cells:
        if cell not in chosen:
            print(f"{cell.name} is left out: it needs more memory than there is")
    return chosen


def _fits(cell, options):
    def needed(dtype):
        sets = count_sets(cell, dtype) if options.cold else 0
        return (_ARRAYS_AT_ONCE + _ARRAYS_A_SET * sets) * cell.nbytes(dtype)

    return max(map(needed, options.dtypes)) < memory()


def main():
    options = _parser().parse_args()
    directions = NORM_DIRECTIONS if options.norms else DIRECTIONS
    systems = [*options.systems, *options.also]
    plan = Plan(
        cells=_chosen_cells(options),
        systems=[s for s in systems if SYSTEMS[s].module in NORM_MODULES or not options.norms],
        threads=options.threads,
        dtypes=options.dtypes,
        directions=[d for d in options.directions if d in directions],
        rounds=options.rounds,
        budget=options.budget,
        cold=options.cold,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    machine = describe()
    results = compare(plan)
    if not results.panels():
        raise SystemExit("nothing was measured")
    table = "norms" if options.norms else "cells"
    name = f"sweep-{options.sweep}" if options.sweep else table
    target = options.output / (f"{name}-cold" if options.cold else name)
    command = shlex.join(["python", "-m", "bench.compare", *sys.argv[1:]])
    target.with_suffix(".json").write_text(report.to_json(results, command, machine))
    if options.sweep:
        text = f"{report.cost_tables(results)}\n\n{report.flatness(results)}\n"
        picture.draw_costs(results, target.with_suffix(".png"))
    else:
        summaries = "" if options.norms else f"{report.summaries(results)}\n\n"
        text = f"{summaries}{report.ratio_tables(results)}\n\n{report.claims_table(results)}\n"
        picture.draw_ratios(results, target.with_suffix(".png"))
    notes = "".join(f"\n- {note}" for note in results.notes)
    target.with_suffix(".md").write_text(f"`{command}`\n{notes}\n\n{text}")
    print(text)


if __name__ == "__main__":
    main()
