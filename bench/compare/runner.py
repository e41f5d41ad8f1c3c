"""Starts one process for each system and lets them take turns."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tqdm import tqdm

from bench.cells import Cell
from bench.compare.catalog import SYSTEMS
from bench.compare.results import Key, Results

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and for how long."""

    cells: Sequence[Cell]
    systems: Sequence[str]
    threads: Sequence[int]
    dtypes: Sequence[str]
    directions: Sequence[str]
    rounds: int
    budget: float
    cold: bool


class Worker:
    """A system's process."""

    def __init__(self, system, threads):
        entry = SYSTEMS[system]
        pools = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "bench.compare.worker", entry.module, str(threads)]
        self.system = system
        self._process = subprocess.Popen(
            [*command, entry.checkout] if entry.checkout else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env=os.environ | pools | entry.environment,
        )

    def answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.system} ended; its message is above")
        return json.loads(line)

    def ask(self, **request):
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self.answer()

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def compare(plan):
    """Measure everything in `plan`.

    Returns
    -------
    Results
    """
    results = Results(plan.cells, "cold" if plan.cold else "hot")
    for threads in plan.threads:
        workers = [Worker(system, threads) for system in plan.systems]
        try:
            _measure(plan, threads, workers, results)
        finally:
            for worker in workers:
                worker.close()
    return results


def _measure(plan, threads, workers, results):
    ready = [worker for worker in workers if _is_ready(worker, results)]
    turns = list(product(plan.dtypes, plan.cells, range(plan.rounds), ready))
    for dtype, cell, number, worker in tqdm(turns, desc=f"threads: {threads}", unit="turn"):
        outcomes = worker.ask(
            layout=cell.layout,
            logical=cell.logical,
            norm=cell.norm,
            dtype=dtype,
            directions=plan.directions,
            budget=plan.budget,
            check=number == 0,
            cold=plan.cold,
        )
        for outcome in outcomes:
            direction, variant = outcome["direction"], outcome["variant"]
            key = Key(threads, dtype, direction, cell.name, worker.system, variant)
            results.add(key, outcome)


def _is_ready(worker, results):
    """Whether the system could be imported; if not, the results say so."""
    greeting = worker.answer()
    if "missing" in greeting:
        results.note(f"{worker.system} is left out: {greeting['missing']}")
        return False
    results.configurations[worker.system] = greeting["configuration"]
    return True
