"""Every cell of the table, forward and backward, beside plain NumPy."""

import pytest

from bench.baseline import TOLERANCE, error, reference
from bench.cells import CELLS, NORM_CELLS, draw
from bench.compare.catalog import DIRECTIONS, NORM_DIRECTIONS
from bench.compare.systems import cybn, numpy
from cybn import get_num_threads

# The module, and whether the result goes to a buffer that is reused.
_CASES = {"cybn": (cybn, False), "cybn-out": (cybn, True), "numpy": (numpy, False)}


@pytest.fixture(scope="module", params=CELLS, ids=lambda cell: cell.name)
def problem(request):
    return draw(request.param, "float32")


@pytest.fixture(scope="module", params=NORM_CELLS, ids=lambda cell: cell.name)
def norm_problem(request):
    return draw(request.param, "float32")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("case", _CASES)
def test_cell(benchmark, problem, direction, case):
    _measure(benchmark, problem, direction, case)


@pytest.mark.parametrize("direction", NORM_DIRECTIONS)
@pytest.mark.parametrize("case", _CASES)
def test_norm_cell(benchmark, norm_problem, direction, case):
    _measure(benchmark, norm_problem, direction, case)


def _measure(benchmark, problem, direction, case):
    benchmark.group = f"{direction} {problem.cell.name}"
    module, reuse = _CASES[case]
    system = module.System(get_num_threads())
    task = getattr(system, direction)(problem, reuse)
    result = task.read(benchmark(task.run))
    assert error(result, reference(problem, direction)) < TOLERANCE["float32"]
