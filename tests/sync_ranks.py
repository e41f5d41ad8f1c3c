"""Processes of a gloo group, for the tests: `run` starts them, and they make checks."""

import os
import subprocess
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import NamedTuple

TESTS = Path(__file__).parent
GIVE_UP = 40  # seconds after which a process no longer waits for another one


class Ended(NamedTuple):
    code: int | None  # None if it had not ended in time
    printed: str
    errors: str


def run(program, size, *arguments, timeout=100):
    """Run a program of tests/ as so many ranks; end all of them when the time is up."""
    with tempfile.TemporaryDirectory() as folder:
        common = {"WORLD_SIZE": str(size), "MEETING": f"{folder}/meeting", "OMP_NUM_THREADS": "1"}
        common |= {"PYTHONPATH": str(TESTS)}
        common |= {"BACKEND": "gloo", "TEMP_DIR": folder}  # for PyTorch's own tests
        command = [sys.executable, str(TESTS / program), *arguments]
        ranks = [_Rank(command, os.environ | common | {"RANK": str(i)}) for i in range(size)]
        try:
            end = monotonic() + timeout
            return [rank.end(end - monotonic()) for rank in ranks]
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.wait()


class _Rank:
    def __init__(self, command, env):
        self.files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        out, err = self.files
        self.process = subprocess.Popen(command, stdout=out, stderr=err, env=env)

    def end(self, seconds):
        """Wait for the process, but no longer, and return how it ended."""
        try:
            code = self.process.wait(max(0, seconds))
        except subprocess.TimeoutExpired:
            code = None  # it is still there
        texts = []
        for file in self.files:
            with file:
                file.seek(0)
                texts.append(file.read())
        return Ended(code, *texts)


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
        torch.manual_seed(0)
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
