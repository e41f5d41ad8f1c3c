"""What is believed of the caches, on made-up machines and on this one."""

import os

import pytest
from levels import CONFIG, run_python, run_python_unchecked
from trees import write_tree

import cybn
from cybn import _caches, _runtime
from cybn._caches import LEAST, LEAST_OF_CORE, MOST, MOST_OF_CORE, Caches, read_caches

KIBI, MEBI = 1 << 10, 1 << 20


def processor(cpu, *caches):
    """The files of a processor's caches (level, type, size, shared_cpu_list)."""
    names = "level", "type", "size", "shared_cpu_list"
    folder = f"/sys/devices/system/cpu/cpu{cpu}/cache/index"
    return {
        f"{folder}{index}/{name}": f"{value}\n"
        for index, cache in enumerate(caches)
        for name, value in zip(names, cache, strict=True)
        if value is not None
    }


def machine(count, threads, second, last=None, shared_by=None):
    """Like processors: `threads` of a core share its second level, `shared_by` of them the last."""
    files = {}
    for cpu in range(count):
        core = cpu // threads * threads
        siblings = f"{core}-{core + threads - 1}" if threads > 1 else f"{core}"
        caches = [
            (1, "Data", "32K", siblings),
            (1, "Instruction", "64K", siblings),
            (2, "Unified", second, siblings),
        ]
        if last is not None:
            first = cpu // shared_by * shared_by
            caches.append((3, "Unified", last, f"{first}-{first + shared_by - 1}"))
        files |= processor(cpu, *caches)
    return files


def hybrid():
    """Two cores of two threads, four small ones with a second level, two others without a third."""
    files = {}
    for cpu in range(10):
        third = [(3, "Unified", "12M", "0-7")] if cpu < 8 else []
        if cpu < 4:
            own, second, sharing = f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}", "1280K", None
        else:
            own, second, sharing = f"{cpu}", "2M", "4-7" if cpu < 8 else "8-9"
        files |= processor(
            cpu, (1, "Data", "48K", own), (2, "Unified", second, sharing or own), *third
        )
    return files


LAPTOP = machine(8, 2, "1280K", "12288K", 8)
ZEN = machine(32, 1, "1024K", "32768K", 8)
MACHINES = {
    "laptop": (LAPTOP, range(8), 1024, Caches(1280 * KIBI, 12 * MEBI, 1280 * KIBI, 12 * MEBI)),
    "laptop, half of its processors": (
        machine(8, 2, "512K", "24M", 8),
        range(4),
        1024,
        Caches(512 * KIBI, 12 * MEBI, 512 * KIBI, 24 * MEBI),
    ),
    "hybrid laptop": (hybrid(), range(10), 1024, Caches(MEBI // 2, 12 * MEBI, 2 * MEBI, 12 * MEBI)),
    "Zen": (ZEN, range(32), 1024, Caches(MEBI, 32 * MEBI, MEBI, 32 * MEBI)),
    "Zen, one core of a complex": (ZEN, [9], 1024, Caches(MEBI, LEAST, MEBI, 32 * MEBI)),
    "Zen with more cache on top": (
        machine(16, 2, "1M", "96M", 16),
        range(16),
        1024,
        Caches(MEBI, MOST, MEBI, 96 * MEBI),
    ),
    "cloud": (
        machine(2, 1, "2048K", "491520K", 2),
        range(2),
        1024,
        Caches(2 * MEBI, MOST, 2 * MEBI, 480 * MEBI),
    ),
    "container, some processors": (
        machine(64, 2, "2M", "128M", 64),
        range(10, 16),
        1024,
        Caches(2 * MEBI, 12 * MEBI, 2 * MEBI, 128 * MEBI),
    ),
    "container, a quota": (
        machine(64, 2, "2M", "128M", 64),
        range(64),
        6,
        Caches(2 * MEBI, 12 * MEBI, 2 * MEBI, 128 * MEBI),
    ),
    "container, few processors": (
        machine(64, 2, "2M", "64M", 64),
        [3],
        1024,
        Caches(2 * MEBI, LEAST, 2 * MEBI, 64 * MEBI),
    ),
    "ARM, which hides the cache of the system": (
        machine(4, 1, "1024K"),
        range(4),
        1024,
        Caches(MEBI, MEBI, MEBI, MEBI),
    ),
    "ARM, clusters of four": (
        processor(0, (1, "Data", "64K", "0"), (2, "Unified", "2M", "0-3"))
        | processor(4, (1, "Data", "64K", "4"), (2, "Unified", "4M", "4-7")),
        range(8),
        1024,
        Caches(MEBI // 2, 4 * MEBI, 2 * MEBI, 4 * MEBI),
    ),
    "the first processor is not ours, or off": (
        {path: text for path, text in ZEN.items() if "/cpu0/" not in path},
        [0, 1],
        1024,
        Caches(MEBI, LEAST, MEBI, 32 * MEBI),
    ),
    "units": (machine(2, 1, "1048576", "1G", 2), [0, 1], 1024, Caches(MEBI, MOST, MEBI, 1 << 30)),
    "a core with too much": (
        machine(1, 1, "32M"),
        [0],
        1024,
        Caches(MOST_OF_CORE, 32 * MEBI, 32 * MEBI, 32 * MEBI),
    ),
    "not said who shares it": (
        processor(0, (2, None, "1M", None), (3, None, "16M", None)),
        [0],
        1024,
        Caches(MEBI, 16 * MEBI, MEBI, 16 * MEBI),
    ),
}
UNKNOWN = Caches(LEAST_OF_CORE, LEAST, None, None)


@pytest.mark.parametrize(
    ("files", "usable", "granted", "expected"), MACHINES.values(), ids=MACHINES
)
def test_what_is_taken(tmp_path, files, usable, granted, expected):
    assert read_caches(write_tree(tmp_path, files), usable, granted) == expected


NONSENSE = {
    "no sysfs": {},
    "only a first level": processor(0, (1, "Data", "32K", "0")),
    "sizes": processor(0, (2, "Unified", "lots", "0"), (3, "Unified", "-4M", "0")),
    "other sizes": processor(0, (2, "Unified", "1.5M", "0"), (2, "Unified", "0K", "0")),
    "a unit": processor(0, (2, "Unified", "1T", "0"), (2, "Unified", "K", "0")),
    "empty": processor(0, ("", "", "", ""), ("", "", "", "")),
    "levels": processor(0, ("-2", "Unified", "1M", "0"), ("two", "Unified", "1M", "0")),
    "only instructions": processor(0, (2, "Instruction", "1M", "0")),
}


@pytest.mark.parametrize("files", NONSENSE.values(), ids=NONSENSE)
def test_where_nothing_is_known(tmp_path, files):
    assert read_caches(write_tree(tmp_path, files), [0], 1) == UNKNOWN


def test_of_many_processors_a_few_are_looked_at(tmp_path, monkeypatch):
    """Far apart, so that all kinds of them are seen."""
    looked_at = []
    monkeypatch.setattr(_caches, "_read_levels", lambda root, cpu: looked_at.append(cpu))
    for count in [1, 2, 8, 9, 500]:
        looked_at.clear()
        assert read_caches(tmp_path, range(count), count) == UNKNOWN
        assert min(count, 5) <= len(looked_at) <= 8
        assert max(looked_at) - min(looked_at) >= count * 3 // 4 - 1


def test_a_call_takes_no_more_than_the_most(tmp_path, monkeypatch):
    """However much the system reports: see there whether it streams."""
    found = read_caches(write_tree(tmp_path, machine(2, 1, "2048K", "491520K", 2)), [0, 1], 2)
    monkeypatch.setattr(_runtime, "caches", lambda: found)
    way = _runtime.schedule(MOST)
    assert (way.from_memory, way.stream, way.cache_size) == (True, True, MOST)
    config = cybn.show_config(mode="dict")
    assert config["cache_size"] == MOST
    assert config["reported_cache_size"] == 480 * MEBI
    assert config["cache_size_of_core"] == config["reported_cache_size_of_core"] == 2 * MEBI


@pytest.mark.skipif("CYBN_CACHE_SIZE" in os.environ, reason="the size is forced")
def test_this_machine():
    assert 0 < CONFIG["cache_size"] <= MOST
    assert 0 < CONFIG["cache_size_of_core"] <= MOST_OF_CORE
    assert CONFIG["cache_size"] <= (CONFIG["reported_cache_size"] or LEAST)


PRINT_SIZES = """
import cybn
from cybn import _runtime
print(cybn.show_config(mode="dict")["cache_size"], _runtime.schedule(1 << 30).cache_size)
"""


@pytest.mark.parametrize(
    ("text", "size"),
    [("123456789", 123456789), ("512K", 512 * KIBI), (" 3m", 3 * MEBI), ("2G", 2 << 30)],
)
def test_the_environment_overrides_it(text, size):
    assert run_python("-c", PRINT_SIZES, CYBN_CACHE_SIZE=text).split() == [f"{size}"] * 2


def test_an_empty_variable_is_none():
    unset = run_python("-c", PRINT_SIZES, CYBN_CACHE_SIZE=None)
    assert run_python("-c", PRINT_SIZES, CYBN_CACHE_SIZE="") == unset


@pytest.mark.parametrize("text", ["0", "-1M", "32 apples", "1.5M", "M", " ", "2048G", "1" * 99])
def test_a_nonsensical_variable_is_refused_at_import(text):
    process = run_python_unchecked("-c", "import cybn", level=CONFIG["level"], CYBN_CACHE_SIZE=text)
    assert process.returncode == 1
    assert "ImportError: CYBN_CACHE_SIZE: expected bytes, or a number with K, M" in process.stderr
    assert repr(text) in process.stderr


def test_import_and_small_calls_look_for_no_caches():
    code = """
import cybn, numpy as np
cybn.forward(np.ones((32, 64)))
assert not cybn._runtime.caches.cache_info().currsize
cybn.forward(np.ones((1 << 12, 64)))
assert cybn._runtime.caches.cache_info().currsize
"""
    run_python("-c", code, CYBN_CACHE_SIZE=None)
