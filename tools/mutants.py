"""Break cybn in the ways of mutants.toml, one at a time, and see the tests notice.

    tools/fresh python tools/mutants.py [words of a name]

Works in a copy, at the best CPU level only. Prints for each mutant the test that killed it; fails
if one survives.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import cybn

ROOT = Path(__file__).parents[1]
LEVEL = cybn.show_config(mode="dict")["level"]
# The quick and telling ones first. What runs other levels is left out.
TESTS = [
    *("test_exactness.py", "test_alignment.py", "test_forward.py", "test_backward.py"),
    *("test_group_norm.py", "test_layer_norm.py", "test_rms_norm.py", "test_conditional.py"),
    *("test_where.py", "test_norm_exact.py", "test_moments.py", "test_hostile.py"),
    *("test_schedule.py", "test_errors.py", "test_out.py", "test_exact.py", "test_reference.py"),
    *("test_outliers.py", "test_thread_state.py", "test_fused_hostile.py", "test_fused_half.py"),
    *("test_fused.py", "test_fused_peers.py", "test_activations.py", "test_half.py"),
    *("test_layer.py", "test_pooled_statistics.py"),
    *("test_threads.py", "test_config.py", "test_faults.py"),
    f"test_guards.py::test_pages_around_arrays_are_not_touched[{LEVEL}]",
    *(
        *("test_memory.py", "test_caches.py", "test_cgroups.py", "test_limits.py"),
        "test_concurrency.py",
        "test_fork.py::test_five_rounds_of_nested_forks_are_quick",
    ),
]


def run(*command, folder):
    """Run a command with the package in this folder."""
    environment = os.environ | {"PYTHONPATH": str(folder), "CYBN_LEVEL": LEVEL}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def copy_checkout(folder):
    """Copy what is built and tested; the build knows the best level only, and is a quick one."""
    for name in ("cybn", "pyx", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    setup = (ROOT / "setup.py").read_text()
    setup = re.sub(rf'(?m)^ +"v(?!{LEVEL[1:]})\d": .*\n', "", setup)
    (folder / "setup.py").write_text(setup.replace('"-O3"', '"-O1"'))


def build(folder):
    process = run("setup.py", "-q", "build_ext", "--inplace", folder=folder)
    if process.returncode:
        sys.exit(f"does not compile:\n{process.stdout}")


def killer(folder):
    """The first test that fails, or None."""
    paths = [f"tests/{test}" for test in TESTS]
    process = run(
        *("-X", "faulthandler", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *paths),
        folder=folder,
    )
    if process.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(.*?)(?: - .*)?$", process.stdout, re.M)
    crashed = re.search(
        r'^  File ".*/(test_\w+\.py)", line \d+ in (test_\w+)', process.stdout, re.M
    )
    if failed:
        return failed[1]
    if crashed:
        return f"{crashed[1]}::{crashed[2]}, by a crash"
    return f"signal {-process.returncode}" if process.returncode < 0 else process.stdout[-2000:]


def killed(mutant, folder):
    """Make the change, and say which test notices; leave everything as it was."""
    path = folder / mutant["file"]
    original = path.read_text()
    if original.count(mutant["old"]) != 1:
        sys.exit(f"{mutant['name']}: occurs {original.count(mutant['old'])} times, expected 1")
    built = {module: module.read_bytes() for module in folder.glob("cybn/*.so")}
    path.write_text(original.replace(mutant["old"], mutant["new"]))
    try:
        if path.suffix != ".py":
            build(folder)
        return killer(folder)
    finally:
        for module, content in built.items():
            module.write_bytes(content)
        path.write_text(original)  # after the modules, which are then out of date


def main(*words):
    mutants = tomllib.loads((ROOT / "tools/mutants.toml").read_text())["mutant"]
    mutants = [mutant for mutant in mutants if " ".join(words) in mutant["name"]]
    survivors = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_checkout(folder)
        build(folder)
        if failed := killer(folder):
            sys.exit(f"The tests fail without a mutant: {failed}")
        for mutant in mutants:
            by = killed(mutant, folder)
            print(f"{mutant['name']}: {by or 'SURVIVED'}", flush=True)
            survivors += [mutant["name"]] if by is None else []
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} killed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main(*sys.argv[1:])
