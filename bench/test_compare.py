"""The comparison's own machinery, without a timing: `pytest bench/test_compare.py`."""

import json
import weakref

import numpy as np
import pytest

from bench.cells import Cell
from bench.compare import catalog, cold, machines, report
from bench.compare.claims import judge
from bench.compare.results import Key, Results
from bench.compare.runner import Worker
from bench.compare.systems import Task, copy_plain
from bench.compare.systems import numpy as plain
from bench.compare.worker import take_turn

SMALL = Cell("NC", (8, 4))
LARGE = Cell("NCHW", (32, 64, 112, 112))


@pytest.fixture
def few_sets(monkeypatch):
    monkeypatch.setattr(cold, "_MOST_SETS", 5)


@pytest.fixture
def systems():
    """The catalog, to which a test may add."""
    before = dict(catalog.SYSTEMS)
    yield catalog.SYSTEMS
    catalog.SYSTEMS.clear()
    catalog.SYSTEMS.update(before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(128, 300), (4096, 1024), (1 << 14, 1 << 14)])
def test_a_round_is_larger_than_the_caches(shape, dtype):
    cell = Cell("NC", shape)
    count = cold.count_sets(cell, dtype)
    assert count >= 3
    assert 2 * count * cell.nbytes(dtype) >= 512 << 20


@pytest.mark.usefixtures("few_sets")
def test_sets_are_equal_and_apart():
    sets = cold.draw_sets(SMALL, "float32")
    names = ("x", "dy", "gamma", "beta", "running_mean", "running_var")
    assert len(sets) == 5
    arrays = [getattr(problem, name) for problem in sets for name in names]
    for array, first in zip(arrays, names * 5, strict=True):
        np.testing.assert_array_equal(array, getattr(sets[0], first))
    starts = [array.ctypes.data for array in arrays]
    assert len(set(starts)) == len(starts)


def test_a_result_lives_until_that_of_the_next_round():
    class Result:
        pass

    made = []

    def run():
        made.append(None)  # before it is known which results are alive
        result = Result()
        made[-1] = weakref.ref(result)
        alive.append([ref is not None and ref() is not None for ref in made])
        return result

    alive = []
    task = cold.in_turn([Task(run, None)] * 3)
    assert task.calls == 3
    task.run()
    task.run()
    assert alive[2] == [True, True, True]
    assert alive[3] == [True, True, True, True]
    assert alive[4] == [False, True, True, True, True]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("direction", ["training", "backward"])
def test_copies_in_turn_copy_each_set(threads, direction, few_sets, monkeypatch):
    monkeypatch.setattr(copy_plain, "_BYTES_TO_SHARE", 1)
    system = copy_plain.System(threads)
    problems = cold.draw_sets(Cell("NC", (64, 33)), "float32")
    tasks = [getattr(system, direction)(problem, True) for problem in problems]
    targets = [task.run.owners[0] for task in tasks]
    for target in targets:
        target[...] = np.nan
    rounds = system.in_turn(tasks)
    rounds.run()
    assert rounds.calls == len(problems)
    for target, problem in zip(targets, problems, strict=True):
        copied, expected = target.reshape(-1), problem.x.reshape(-1).copy()
        if direction == "backward":  # half of dy has come over the beginning of each share
            shares = expected.reshape(threads, -1)
            half = problem.dy.reshape(-1)[: expected.size // 2].reshape(threads, -1)
            shares[:, : half.shape[1]] = half
        np.testing.assert_array_equal(copied, expected)


@pytest.mark.parametrize("wrong_set", [None, 3])
def test_the_result_of_each_set_is_checked(wrong_set, few_sets):
    class System(plain.System):
        made = 0

        def training(self, problem, reuse):
            task = super().training(problem, reuse)
            if task is not None:
                self.made += 1
                if self.made - 1 == wrong_set:
                    return Task(lambda: task.run() + 1, task.read)
            return task

    (outcome,) = take_turn(
        System(1), SMALL.layout, SMALL.logical, "batch", "float32", ["training"], 0, True, True
    )
    assert ("wrong" in outcome) == (wrong_set is not None)


@pytest.mark.parametrize("text", ["cybn=", "=", "new=/no/such/folder", "new=,VARIABLE"])
def test_what_also_refuses(text, systems):
    before = dict(systems)
    with pytest.raises(ValueError, match=r"checkout of cybn|NAME="):
        catalog.add_cybn(text)
    assert systems == before


def test_also_takes_another_checkout(systems, tmp_path):
    package = tmp_path / "cybn"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import os\n"
        "set_num_threads = layer_norm = group_norm = instance_norm = lambda *arguments: None\n"
        "def show_config(mode): return {'it is': os.environ['WHICH']}\n"
    )
    name = catalog.add_cybn(f"other={tmp_path},WHICH=that=one")
    worker = Worker(name, 1)
    try:
        assert worker.answer() == {"configuration": {"it is": "that=one"}}
    finally:
        worker.close()
    assert catalog.column_title(name, "out") == "other `out=`"


def _results(memory, torch_seconds, threads=1):
    results = Results([LARGE], memory)
    results.configurations["cybn"] = {"level": "v4", "cache_size": 32 << 20}
    for direction in catalog.DIRECTIONS:
        for system, seconds in (("cybn", 1.0), ("torch", torch_seconds)):
            key = Key(threads, "float32", direction, LARGE.name, system, "fresh")
            results.add(key, {"seconds": seconds})
    return results


@pytest.mark.parametrize(
    ("memory", "threads", "ratio", "holds"),
    [
        ("hot", 1, 3.1, True),
        ("hot", 1, 2.5, False),
        ("cold", 1, 2.1, True),
        ("cold", 1, 1.9, False),
        ("cold", 2, 0.95, True),
        ("cold", 2, 0.85, False),
        ("cold", 4, 0.85, None),
    ],
)
def test_goals_depend_on_memory_and_threads(memory, threads, ratio, holds):
    first = judge(_results(memory, ratio, threads), threads)[0]
    assert first.claim.text == "PyTorch"
    assert first.geomean == pytest.approx(ratio)
    assert first.holds is holds


def test_another_cybn_is_compared_without_a_goal(systems):
    catalog.add_cybn("before=")
    results = _results("cold", 2)
    results.configurations["before"] = {}
    key = Key(1, "float32", "backward", LARGE.name, "before", "fresh")
    results.add(key, {"seconds": 1.5})
    (verdict,) = [v for v in judge(results, 1) if v.claim.system == "before"]
    assert (verdict.claim.text, verdict.holds) == ("before, backward", None)
    assert verdict.geomean == pytest.approx(1.5)


def test_machines_reads_what_a_run_has_written():
    machine = {"processor": "a machine", "caches": {"L2 Unified": "1M", "L3 Unified": "480M"}}
    runs = [_results("hot", 4), _results("cold", 2)]
    contents = [json.loads(report.to_json(run, "command", machine)) for run in runs]
    header, _, first, second = machines.table(contents).splitlines()
    assert header.endswith("| arrays | threads | PyTorch | PyTorch, cells over 4 MiB |")
    assert first == "| a machine | 1M, 480M | v4, 32M | cold | 1 | 2.00 | 2.00 |"
    assert second == "| a machine | 1M, 480M | v4, 32M | hot | 1 | 4.00 | 4.00 |"


def test_titles_name_the_memory():
    results = _results("cold", 2)
    assert "### backward, cold, float32, 1 thread\n" in report.ratio_tables(results)
    assert report.summaries(results).splitlines()[:3] == [
        "### Summary, cold, float32, 1 thread",
        "",
        "| cell | cybn, training | PyTorch | PyTorch, inference | PyTorch, backward |",
    ]
