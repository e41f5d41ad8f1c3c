"""The examples run from end to end, with as little work as they have an option for."""

from pathlib import Path

import pytest
from levels import run_python

for package in ("matplotlib", "sklearn", "threadpoolctl", "tqdm"):
    pytest.importorskip(package)

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
NEEDED = {
    "dask_moments": ("distributed", "zarr"),
    "ddp_digits": ("torch",),
    "mpi_digits": ("mpi4py",),
    "torch_digits": ("torch",),
}
OF_MEGABYTES = "dask_moments", "larger_than_memory"


@pytest.mark.parametrize("name", EXAMPLES)
def test_leaves_a_picture_and_ends_with_a_sentence(name, tmp_path):
    for package in NEEDED.get(name, ()):
        pytest.importorskip(package)
    smallest = "--megabytes=4" if name in OF_MEGABYTES else "--epochs=1"
    printed = run_python(FOLDER / f"{name}.py", smallest, "--out", tmp_path)
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    *_, before, sentence = printed.splitlines()
    assert before == ""
    assert sentence.endswith(".")
    assert "nan" not in printed
