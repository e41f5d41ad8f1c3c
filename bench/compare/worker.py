"""One system in one process: reads a request for a turn a line, in JSON, and answers it.

Started by `runner.Worker`; standard output carries the answers alone.
"""

import importlib
import json
import os
import statistics
import sys
import timeit
from functools import partial

from bench.baseline import TOLERANCE, error, reference
from bench.cells import Cell, draw
from bench.compare.catalog import VARIANTS
from bench.compare.cold import draw_sets, give_back, in_turn

_SAMPLE_SECONDS = 1e-3  # a sample of a short call is many calls
_MINIMUM_SAMPLES = 3


def take_turn(system, layout, logical, norm, dtype, directions, budget, check, cold):
    """Measure one cell.

    Returns
    -------
    list of dict
        For each direction and variant that the system has: `seconds`, or the error of a
        `wrong` result.
    """
    cell = Cell(layout, tuple(logical), norm)
    problems = draw_sets(cell, dtype) if cold else [draw(cell, dtype)]
    outcomes = []
    for direction in directions:
        expected = reference(problems[0], direction) if check else None
        for variant in VARIANTS:
            make = partial(getattr(system, direction), reuse=variant == "out")
            outcome = _outcome(system, make, problems, expected, budget)
            if outcome is not None:
                outcomes.append({"direction": direction, "variant": variant, **outcome})
    return outcomes


def _outcome(system, make, problems, expected, budget):
    """What came of one case, or None if the system does not have it."""
    tasks = [task for task in map(make, problems) if task is not None]
    if not tasks:
        return None
    if expected is not None:
        tolerance = TOLERANCE[problems[0].x.dtype.name]
        for task in tasks:
            found = error(task.read(task.run()), expected) if task.read is not None else 0
            if not found <= tolerance:  # so that NaN is wrong
                return {"wrong": found}
    if len(tasks) == 1:
        return {"seconds": _median_seconds(tasks[0], budget)}
    rounds = getattr(system, "in_turn", in_turn)
    return {"seconds": _median_seconds(rounds(tasks), budget)}


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


def main(module, threads, path=None):
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to standard error

    def answer(content):
        print(json.dumps(content), file=answers)

    _restrict(int(threads))
    if path is not None:
        sys.path.insert(0, path)  # only for cybn: `bench` is loaded already, and stays this one
    try:
        system = importlib.import_module(f"bench.compare.systems.{module}").System(int(threads))
    except ImportError as missing:
        answer({"missing": str(missing)})
        return
    answer({"configuration": system.configuration()})
    for line in sys.stdin:
        request = json.loads(line)
        answer(take_turn(system, **request))
        if request["cold"]:
            give_back()


if __name__ == "__main__":
    main(*sys.argv[1:])
