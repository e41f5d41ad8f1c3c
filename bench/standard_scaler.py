"""cybn's StandardScaler beside scikit-learn's, each in a process of its own.

python -m bench.standard_scaler prints milliseconds, medians, and scikit-learn's over cybn's.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from importlib import import_module
from statistics import median

import numpy as np

MODULES = {"cybn": "cybn.sklearn", "scikit-learn": "sklearn.preprocessing"}
DTYPES = "float32", "float64"


def values(options):
    """Return features of unit variance, of which a share is missing."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((options.samples, options.features), options.dtype)
    x += np.arange(options.features, dtype=x.dtype)
    if options.missing:
        x[rng.random(x.shape, np.float32) < options.missing] = np.nan
    return np.asfortranarray(x) if options.fortran else x


def medians(options):
    """Return the milliseconds of each method in this process."""
    scaler = import_module(MODULES[options.system]).StandardScaler
    x = values(options)
    fitted, seen = scaler().fit(x), scaler().fit(x)
    calls = {
        "fit": partial(scaler().fit, x),
        "partial_fit": partial(seen.partial_fit, x),
        "transform": partial(fitted.transform, x),
        "inverse_transform": partial(fitted.inverse_transform, x),
    }
    return {name: milliseconds(call, options.repeats) for name, call in calls.items()}


def milliseconds(call, repeats):
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def in_another_process(system, dtype):
    command = [sys.executable, "-m", "bench.standard_scaler", *sys.argv[1:]]
    command += ["--system", system, "--dtype", dtype]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(printed)


def compare(options):
    threads = options.threads or len(os.sched_getaffinity(0))
    shape = options.samples, options.features
    print(f"{shape}, {threads} threads, {options.missing:.0%} missing\n")
    print("| dtype | method | cybn, ms | scikit-learn, ms | ratio |", "| --- " * 5 + "|", sep="\n")
    for dtype in DTYPES:
        rounds = [
            {system: in_another_process(system, dtype) for system in MODULES}
            for _ in range(options.rounds)
        ]
        for method in rounds[0]["cybn"]:
            cybn, peer = (median(each[system][method] for each in rounds) for system in MODULES)
            print(f"| {dtype} | {method} | {cybn:.1f} | {peer:.1f} | {peer / cybn:.1f} |")


def parser():
    parser = argparse.ArgumentParser(prog="python -m bench.standard_scaler", description=__doc__)
    add = parser.add_argument
    add("--samples", type=int, default=1_000_000)
    add("--features", type=int, default=50)
    add("--missing", type=float, default=0.0, help="share of values that are NaN")
    add("--fortran", action="store_true", help="an array in Fortran order, as of a DataFrame")
    add("--threads", type=int, help="of cybn; the default is its own")
    add("--rounds", type=int, default=3)
    add("--repeats", type=int, default=5, help="in one process")
    add("--system", choices=MODULES, help=argparse.SUPPRESS)
    add("--dtype", choices=DTYPES, help=argparse.SUPPRESS)
    return parser


def main():
    options = parser().parse_args()
    if options.system is None:
        compare(options)
        return
    if options.threads:
        import_module("cybn").set_num_threads(options.threads)
    print(json.dumps(medians(options)))


if __name__ == "__main__":
    main()
