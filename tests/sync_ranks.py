"""Processes of a gloo group, for the tests: `run` starts them, and they make checks."""

import os
import subprocess
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

TESTS = Path(__file__).parent
GIVE_UP = 20  # seconds after which a process no longer waits for another one


class Ended:
    """How a process ended, and what it printed."""

    def __init__(self, code, printed, errors):
        self.code, self.printed, self.errors = code, printed, errors


def run(program, size, *arguments, timeout=100):
    """Run a program of tests/ as so many ranks; end all of them when the time is up."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder, "meeting")
        processes, files = [], []
        try:
            for rank in range(size):
                pair = [Path(folder, f"{name}{rank}").open("w+") for name in ("out", "err")]
                files.append(pair)
                env = os.environ | {"OMP_NUM_THREADS": "1"}
                env |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MEETING": str(meeting)}
                env["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS)])
                command = [sys.executable, str(TESTS / program), *map(str, arguments)]
                options = {"stdout": pair[0], "stderr": pair[1], "env": env, "cwd": folder}
                processes.append(subprocess.Popen(command, **options))
            codes = _codes(processes, timeout)
            texts = [[_text(file) for file in pair] for pair in files]
        finally:
            for process in processes:
                process.kill()
                process.wait()
            for pair in files:
                for file in pair:
                    file.close()
    return [Ended(code, *pair) for code, pair in zip(codes, texts, strict=True)]


def _codes(processes, timeout):
    """Return the exit codes; None of a process that is still running at the end of the time."""
    from time import monotonic

    end = monotonic() + timeout
    codes = []
    for process in processes:
        try:
            codes.append(process.wait(max(0, end - monotonic())))
        except subprocess.TimeoutExpired:
            codes.append(None)
    return codes


def _text(file):
    file.seek(0)
    return file.read()


def join(give_up=GIVE_UP):
    """Join the group, in one of its processes; return the rank and the size."""
    import torch

    torch.set_num_threads(1)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{os.environ['MEETING']}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=give_up),
    )
    return rank, size


def report(checks):
    """Make checks, functions without arguments, in a process; print how each of them ended."""
    import torch

    for name, check in checks.items():
        torch.distributed.barrier()
        try:
            check()
        except Exception:
            print(f"== {name}: failed\n{traceback.format_exc()}", flush=True)
        else:
            print(f"== {name}: passed", flush=True)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def outcomes(ended):
    """Return a dict from the names of checks to what went wrong in some process, or ""."""
    results = {}
    for rank, process in enumerate(ended):
        for part in process.printed.split("== ")[1:]:
            head, _, text = part.partition("\n")
            name, _, word = head.rpartition(": ")
            results.setdefault(name, "")
            if word != "passed":
                results[name] += f"rank {rank}: {text}\n"
        if process.code != 0:
            text = f"rank {rank} ended with {process.code}: {process.printed[-2000:]}"
            results[""] = results.get("", "") + f"{text}\n{process.errors}\n"
    return results
