"""Memory of large results is used again, and given back when it should be."""

import pickle
from pathlib import Path

import numpy as np
import pytest

import cybn
from cybn import _memory

MEBI = 1 << 20
GRANTED = _memory._granted.__wrapped__  # the function, not its kept result
SIZE = _memory.LARGE // 4  # values of the smallest result that is made in such memory


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """At first nothing is kept, and there is room; afterwards the limit is what it was."""
    monkeypatch.setattr(_memory, "_setting", None)
    monkeypatch.setattr(_memory, "_granted", lambda: 1 << 40)
    cybn.set_kept_memory(0)
    cybn.set_kept_memory(16 * _memory.LARGE)
    yield _memory.kept_memory
    cybn.set_kept_memory(0)


def ones(size=SIZE):
    return np.ones((size, 1), np.float32)


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_of_a_freed_result_is_used_again(kept):
    x = ones()
    y, cache = cybn.forward(x)
    where = address(y)
    del y
    assert kept() == x.nbytes
    y, _ = cybn.forward(x)
    assert address(y) == where
    assert kept() == 0
    assert not y.any()
    del y
    assert address(cybn.backward(x, cache).dx) == where


def test_a_result_in_use_keeps_its_memory():
    x = ones()
    y, _ = cybn.forward(x)
    view = y[5:]
    del y
    other, _ = cybn.forward(x, beta=np.ones(1))
    assert not view.any()
    assert (other == 1).all()


def test_small_results_are_numpys_own(kept):
    y, _ = cybn.forward(ones(SIZE - 1))
    assert y.base is None
    del y
    assert kept() == 0


@pytest.mark.parametrize("limit", [0, _memory.LARGE - 1])
def test_nothing_is_kept_above_the_limit(kept, limit):
    cybn.set_kept_memory(limit)
    cybn.forward(ones())
    assert kept() == 0


def test_a_lower_limit_gives_the_oldest_back(kept):
    x = ones()
    first, second = (cybn.forward(x)[0] for _ in range(2))
    newest = address(second)
    del first
    del second
    cybn.set_kept_memory(_memory.LARGE + 1)
    assert kept() == _memory.LARGE
    assert address(cybn.forward(x)[0]) == newest


def test_many_results_leave_no_more_than_the_limit(kept):
    cybn.set_kept_memory(3 * _memory.LARGE)
    x = ones()
    for _ in range(3):
        results = [cybn.forward(x)[0] for _ in range(5)]
        del results
        assert kept() == 3 * _memory.LARGE


def lazily_freed():
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        pytest.skip("the system does not tell which memory is lent")
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("LazyFree:"))


def test_all_but_a_quarter_of_the_limit_is_lent_to_the_system(kept):
    x = ones()
    before = lazily_freed()
    results = [cybn.forward(x)[0] for _ in range(8)]  # half the limit
    del results
    assert kept() == 8 * _memory.LARGE
    # The system counts them in batches, and may already have taken some.
    assert 3 * _memory.LARGE < lazily_freed() - before <= 4 * _memory.LARGE
    cybn.set_kept_memory(8 * _memory.LARGE)
    assert 5 * _memory.LARGE < lazily_freed() - before <= 6 * _memory.LARGE


def blocks(*sizes):
    """Memory of results of these sizes in MiB, and where it begins."""
    made = [_memory.native.Block(int(size * MEBI), 200 * MEBI) for size in sizes]
    return made, [address(np.frombuffer(block, np.uint8)) for block in made]


@pytest.mark.parametrize(("size", "taken"), [(4.25, 4.25), (62.25, 64), (62, 62)])
def test_a_huge_page_is_taken_where_little_of_it_is_left_over(kept, size, taken):
    made, _ = blocks(size)
    del made
    assert kept() == taken * MEBI


def test_a_result_uses_the_memory_of_one_that_is_somewhat_larger(kept):
    made, (where,) = blocks(36)
    del made
    for size in [36, 34, 32]:
        made, (again,) = blocks(size)
        assert again == where
        assert kept() == 0
        del made
        assert kept() == 36 * MEBI  # the block is as large as it was
    _made, others = blocks(30, 38)
    assert where not in others
    assert kept() == 36 * MEBI


def test_of_several_blocks_the_one_that_fits_best_is_used():
    made, (large, small, exact) = blocks(36, 34, 32)
    del made
    _made, where = blocks(32, 32, 32)
    assert where == [exact, small, large]


def test_what_a_smaller_result_leaves_of_a_block_is_lent():
    made, _ = blocks(36)
    np.frombuffer(made[0], np.uint8)[:] = 1
    before = lazily_freed()
    del made
    assert lazily_freed() <= before  # it is held
    made, _ = blocks(32)
    assert 3 * MEBI < lazily_freed() - before <= 4 * MEBI
    assert np.frombuffer(made[0], np.uint8).all()


def test_a_network_finds_the_memory_of_its_last_steps(kept):
    """Results of 40 sizes, all alive at once; then as many gradients, one after the other."""
    sizes = range(4, 44)
    limit = 2 << 30

    def step():
        results, places = [], set()
        for size in sizes:
            results.append(_memory.native.Block(size * MEBI, limit))
            places.add(address(np.frombuffer(results[-1], np.uint8)))
        for size in reversed(sizes):
            gradient = _memory.native.Block(size * MEBI, limit)
            places.add(address(np.frombuffer(gradient, np.uint8)))
            results.pop()
        return places

    known = step() | step()
    for _ in range(4):
        assert step() <= known


def test_sizes_that_go_unused_go(kept):
    made, _ = blocks(6, 4)
    del made
    for _ in range(256):
        assert kept() == 10 * MEBI
        made, _ = blocks(4)
        del made
    made, _ = blocks(4)
    del made
    assert kept() == 4 * MEBI


@pytest.mark.parametrize(
    ("granted", "limit", "most"),
    [
        (300 * MEBI, None, 300 * MEBI // 16),
        (24 << 30, None, 24 << 26),
        (1 << 40, None, 2 << 30),
        (0, None, 0),
        (300 * MEBI, 20 * MEBI, 20 * MEBI),
        (300 * MEBI, 1 << 62, 75 * MEBI),
        (1 << 40, 100 << 30, 100 << 30),
    ],
)
def test_the_limit_is_bounded_by_the_memory_that_is_granted(monkeypatch, granted, limit, most):
    monkeypatch.setattr(_memory, "_granted", lambda: granted)
    monkeypatch.setattr(_memory, "_setting", None)
    if limit is not None:
        cybn.set_kept_memory(limit)
    assert cybn.show_config(mode="dict")["kept_memory_limit"] == most


@pytest.mark.parametrize(
    ("machine", "cgroups", "granted"),
    [(64 << 30, 300 * MEBI, 300 * MEBI), (MEBI, 2 * MEBI, MEBI), (MEBI, None, MEBI), (0, 5, 5)],
)
def test_what_is_granted_is_the_machine_s_memory_or_the_cgroups_limit(
    monkeypatch, machine, cgroups, granted
):
    monkeypatch.setattr(_memory.native, "machine_memory", lambda: machine)
    monkeypatch.setattr(_memory, "memory_limit", lambda: cgroups)
    assert GRANTED() == granted


def test_results_are_arrays_like_any_other():
    x = np.arange(SIZE, dtype=np.float32).reshape(-1, 4)
    y, _ = cybn.forward(x)
    assert type(y) is np.ndarray
    assert y.flags.c_contiguous
    assert y.flags.writeable
    assert y.dtype == x.dtype
    assert y.shape == x.shape
    restored = pickle.loads(pickle.dumps(y))
    out = np.empty_like(x)
    cybn.forward(x, out=out)
    assert np.array_equal(restored, out)
    assert np.array_equal(y, out)
    again, cache = cybn.forward(y)  # as an input, and as `out`
    assert cybn.backward(again, cache, out=again).dx is again


def test_no_memory_is_a_memory_error():
    with pytest.raises(MemoryError, match="bytes"):
        _memory.native.Block(1 << 60, 0)


def test_show_config_tells_how_much(kept):
    cybn.forward(ones())
    config = cybn.show_config(mode="dict")
    assert config["kept_memory"] == kept() == _memory.LARGE
    assert config["kept_memory_limit"] == 16 * _memory.LARGE


@pytest.mark.parametrize("limit", [None, 1.0, "1", True])
def test_the_limit_is_an_int(limit):
    with pytest.raises(TypeError, match="limit: expected an int, got"):
        cybn.set_kept_memory(limit)


@pytest.mark.parametrize("limit", [-1, 1 << 63])
def test_the_limit_is_in_range(limit):
    with pytest.raises(ValueError, match="limit: expected an int from 0 to"):
        cybn.set_kept_memory(limit)
