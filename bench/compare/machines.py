"""The table of machines, from the JSON of runs: `python -m bench.compare.machines RUN.json ...`.

A row for each run and thread count, in float32: what the machine is, and the geometric means.
"""

import argparse
import json
from pathlib import Path

from bench.compare.claims import CLAIMS, judge
from bench.compare.report import markdown
from bench.compare.results import Results

_MACHINE = ["machine", "second level, last level", "cybn takes", "arrays", "threads"]


def table(contents):
    """Markdown of the runs' contents: the same machine's together, cold before hot."""
    rows = sorted((row for content in contents for row in _rows(content)), key=lambda row: row[0])
    measured = [claim.text for claim in CLAIMS if any(claim.text in means for _, means in rows)]
    body = [[*facts, *(means.get(text, "-") for text in measured)] for facts, means in rows]
    return markdown([*_MACHINE, *measured], body)


def _rows(content):
    """(facts, geometric means by claim) for each thread count of a run."""
    results = Results.read(content)
    machine = content["machine"]
    config = results.configurations.get("cybn", {})
    caches = list(machine["caches"].values())
    seen = f"{caches[-2]}, {caches[-1]}" if len(caches) > 1 else "unknown"
    taken = f"{config['level']}, {config['cache_size'] / 2**20:.3g}M" if config else "-"
    for threads in results.values("threads"):
        means = {
            verdict.claim.text: f"{verdict.geomean:.2f}" for verdict in judge(results, threads)
        }
        yield [machine["processor"], seen, taken, results.memory, str(threads)], means


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.compare.machines", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN.json")
    print(table(json.loads(path.read_text()) for path in parser.parse_args().runs))


if __name__ == "__main__":
    main()
