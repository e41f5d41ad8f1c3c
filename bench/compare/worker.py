"""One system in one process: reads a request for a turn a line, in JSON, and answers it.

Started by `runner.Worker`; standard output carries the answers alone.
"""

import importlib
import json
import os
import statistics
import sys
import timeit

from bench.baseline import TOLERANCE, error, reference
from bench.cells import Cell, draw
from bench.compare.catalog import VARIANTS

_SAMPLE_SECONDS = 1e-3  # a sample of a short call is many calls
_MINIMUM_SAMPLES = 3


def take_turn(system, layout, logical, norm, dtype, directions, budget, check):
    """Measure one cell.

    Returns
    -------
    list of dict
        For each direction and variant that the system has: `seconds`, or the error of a
        `wrong` result.
    """
    problem = draw(Cell(layout, tuple(logical), norm), dtype)
    outcomes = []
    for direction in directions:
        expected = reference(problem, direction) if check else None
        for variant in VARIANTS:
            task = getattr(system, direction)(problem, variant == "out")
            if task is None:
                continue
            outcome = _outcome(task, expected, TOLERANCE[dtype], budget)
            outcomes.append({"direction": direction, "variant": variant, **outcome})
    return outcomes


def _outcome(task, expected, tolerance, budget):
    if expected is not None and task.read is not None:
        found = error(task.read(task.run()), expected)
        if not found <= tolerance:  # so that NaN is wrong
            return {"wrong": found}
    return {"seconds": _median_seconds(task, budget)}


def _restrict(threads):
    """Keep the process to as many processors as it may have threads: every pool obeys that."""
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, processors[-threads:])


def _median_seconds(task, budget):
    timer = timeit.Timer(task.run)
    timer.timeit(1)  # the first call compiles, touches new memory and fills the caches
    once = timer.timeit(1)
    number = max(1, round(_SAMPLE_SECONDS / once))
    samples = timer.repeat(max(_MINIMUM_SAMPLES, round(budget / (number * once))), number)
    return statistics.median(samples) / (number * task.calls)


def main(module, threads):
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to standard error

    def answer(content):
        print(json.dumps(content), file=answers)

    _restrict(int(threads))
    try:
        system = importlib.import_module(f"bench.compare.systems.{module}").System(int(threads))
    except ImportError as missing:
        answer({"missing": str(missing)})
        return
    answer({"configuration": system.configuration()})
    for line in sys.stdin:
        answer(take_turn(system, **json.loads(line)))


if __name__ == "__main__":
    main(*sys.argv[1:])
