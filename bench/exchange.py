"""What a group's exchanges cost: measured on this machine, and modelled for many.

``python -m bench.exchange`` runs itself under mpiexec on 1, 2, 4 and 8 processes, prints two tables
and leaves a picture and the figures in ``bench-results/``. It needs mpi4py, mpich and matplotlib.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from matplotlib.figure import Figure

import cybn
from cybn._group import HEADER, WIDTH

PROCESSES = 1, 2, 4, 8
MODELLED = 10, 100, 1000, 10_000
CHANNELS = 64, 1024, 4096
BATCH = 32, 64, 28, 28  # of one process
SECONDS = 1.5
# Seconds a message, and a byte: TCP over 10 Gb/s Ethernet, and InfiniBand of 100 Gb/s.
NETWORKS = {"10 Gb/s Ethernet": (30e-6, 0.8e-9), "100 Gb/s InfiniBand": (2e-6, 0.08e-9)}
MERGE = 5e-9  # seconds a mean, and a squared deviation, that a member merges: 3 to 20 ns here


def sizes(channels):
    """Return the bytes of each gathering that a step of one norm makes, both directions."""
    lengths = []
    for values in (2 * channels, 2 * channels):  # mean and m2; center and slope
        rest = values + len(HEADER) - WIDTH
        lengths += [WIDTH] if rest <= 0 else [WIDTH, rest]
    return [8 * length for length in lengths]


def ring(p, nbytes, latency, per_byte):
    """Gather: everybody hands on what came, p - 1 times."""
    return (p - 1) * (latency + nbytes * per_byte)


def tree(p, nbytes, latency, per_byte):
    """Gather: in each of log2(p) rounds everybody has twice as much."""
    return np.ceil(np.log2(p)) * latency + (p - 1) * nbytes * per_byte


def summed(p, nbytes, latency, per_byte):
    """An all-reduce by halving and doubling, which would not keep the order of the ranks."""
    return 2 * np.ceil(np.log2(p)) * latency + 2 * nbytes * per_byte


def cost(algorithm, p, channels, network):
    """Return the seconds that a training step of one norm exchanges."""
    if algorithm is summed:
        return 2 * summed(p, 16 * channels, *network)
    gathered = sum(algorithm(p, nbytes, *network) for nbytes in sizes(channels))
    return gathered + p * 2 * channels * MERGE


def timed(call, comm):
    """Return the median time of a call, in seconds, as all members make it together."""
    call()
    comm.Barrier()
    start = perf_counter()
    call()
    rounds = comm.bcast(max(5, int(SECONDS / 4 / (perf_counter() - start + 1e-6))))
    times = []
    for _ in range(min(rounds, 2000)):
        comm.Barrier()
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return comm.bcast(median(times))


def measure():
    """As a member: print the times of a gathering and of a step, with and without the group."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    cybn.set_num_threads(1)
    rng = np.random.default_rng(comm.rank)
    figures = {}
    for length in (129, WIDTH, 8192):
        vector, rows = rng.normal(size=length), np.empty((comm.size, length))
        figures[f"gather {length}"] = timed(lambda v=vector, r=rows: comm.Allgather(v, r), comm)
    for name, shape in (("small", (32, 64)), ("large", BATCH)):
        x = rng.normal(size=shape).astype(np.float32)
        for group in (None, comm):

            def step(x=x, group=group):
                _, cache = cybn.batch_norm(x, group=group)
                cybn.backward(x, cache)

            figures[f"{name} {'alone' if group is None else 'group'}"] = timed(step, comm)
    if comm.rank == 0:
        print(json.dumps(figures))


def run(processes):
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", str(processes), sys.executable, "-m", "bench.exchange", "--member"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_measured(measured):
    print("| processes | gather 129 | gather 2,064 | gather 8,192 | (32, 64) alone | in a group |")
    print("|---|---|---|---|---|---|")
    for processes, figures in measured.items():
        names = "gather 129", f"gather {WIDTH}", "gather 8192", "small alone", "small group"
        print(f"| {processes} | " + " | ".join(f"{figures[n] * 1e6:,.0f} µs" for n in names) + " |")
    for processes, figures in measured.items():
        alone, group = (figures[f"large {kind}"] * 1e3 for kind in ("alone", "group"))
        print(f"{BATCH}, {processes} processes: {alone:.2f} ms alone, {group:.2f} ms in a group")


def print_model():
    for name, network in NETWORKS.items():
        print(f"\n{name}, ms a step of one norm: ring / tree / all-reduce\n")
        print("| processes | " + " | ".join(f"C = {c}" for c in CHANNELS) + " |")
        print("|---" * (len(CHANNELS) + 1) + "|")
        for p in MODELLED:
            cells = [
                " / ".join(f"{cost(a, p, c, network) * 1e3:.3g}" for a in (ring, tree, summed))
                for c in CHANNELS
            ]
            print(f"| {p:,} | " + " | ".join(cells) + " |")


def save_picture(path, work):
    figure = Figure(figsize=(10, 4), layout="constrained", dpi=120)
    processes = np.unique(np.geomspace(2, 10_000, 40).astype(int))
    panels = figure.subplots(1, len(NETWORKS), sharey=True)
    for axes, (name, network) in zip(panels, NETWORKS.items(), strict=True):
        for channels, color in ((64, "#00798c"), (4096, "#d1495b")):
            for algorithm, style in ((ring, ":"), (tree, "-"), (summed, "--")):
                costs = [cost(algorithm, p, channels, network) * 1e3 for p in processes]
                kind = "all-reduce" if algorithm is summed else algorithm.__name__
                axes.loglog(processes, costs, style, color=color, label=f"{kind}, C = {channels}")
        axes.axhline(work * 1e3, color="black", linewidth=0.8)
        axes.text(40, work * 0.5e3, f"the norm itself, {BATCH}", fontsize=8)
        axes.set_title(name, loc="left", fontweight="bold")
        axes.set_xlabel("processes")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms a training step of one norm")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--member", action="store_true", help="as it calls itself")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    arguments = parser.parse_args()
    if arguments.member:
        measure()
        return
    measured = {processes: run(processes) for processes in PROCESSES}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "exchange.json").write_text(json.dumps(measured, indent=1))
    print_measured(measured)
    print_model()
    save_picture(arguments.out / "exchange.png", measured[1]["large alone"])


if __name__ == "__main__":
    main()
