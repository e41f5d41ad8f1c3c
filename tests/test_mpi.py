"""Groups over MPI: processes of their own, each run with a time limit."""

import pytest
from mpi_peer import ROOT, run_mpi

MEMBERS = "mpi_members.py"


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NC"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_members_have_what_one_process_has(size, layout, dtype):
    code, printed = run_mpi(size, MEMBERS, "values", layout, dtype)
    assert code == 0, printed
    assert printed.count("passed") == size


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("channels", "expected the same channels on all members, got 3 on member 0, 4 on member 1"),
        ("eps", "expected the same eps on all members, got 1e-05 on member 0, 0.001 on member 1"),
        ("gamma", "gamma: expected shape (3,)"),
        ("single", "expected more than 1 value per channel over all members"),
    ],
)
def test_an_error_is_one_on_every_rank(what, message):
    size = 2 if what == "single" else 3
    code, printed = run_mpi(size, MEMBERS, "wrong", what, timeout=30)
    assert code == 0, printed
    assert printed.count(message) == size, printed


def test_a_member_that_raises_before_the_call_ends_all_with_its_message():
    code, printed = run_mpi(2, "-m", "mpi4py", MEMBERS, "alone", timeout=30)
    assert code not in (0, None), printed
    assert "RuntimeError: before the call" in printed


def test_a_killed_member_ends_all():
    code, printed = run_mpi(2, MEMBERS, "killed", timeout=30)
    assert code not in (0, None), printed


def test_a_member_that_never_comes_is_waited_for_and_the_time_limit_ends_that():
    code, printed = run_mpi(2, MEMBERS, "late", timeout=5)
    assert code is None, printed


def test_the_example_has_the_curve_of_one_process(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    example = ROOT / "examples" / "mpi_digits.py"
    code, printed = run_mpi(2, example, "--epochs=1", "--out", tmp_path, timeout=120)
    assert code == 0, printed
    assert (tmp_path / "mpi_digits.png").stat().st_size > 10_000
    assert printed.count("The curve is that of one process") == 1, printed
