"""The promise on bits: the same on every machine, for every level and every thread count."""

import json

import pytest
from bits import differing_from_golden
from levels import CONFIG, LEVELS, run_python

THREAD_COUNTS = [1, 2, 3, 7]


@pytest.fixture(scope="module")
def runs():
    """What bits.py prints, by level."""
    return {
        level: json.loads(run_python("bits.py", *map(str, THREAD_COUNTS), level=level))
        for level in LEVELS
    }


def test_same_bits_for_every_level_and_thread_count(runs):
    expected = runs[LEVELS[0]]["digests"]["1"]
    differing = {
        (level, threads, case)
        for level, run in runs.items()
        for threads, digests in run["digests"].items()
        for case, digest in digests.items()
        if digest != expected[case]
    }
    assert not differing
    assert all(len(run["digests"]) == len(THREAD_COUNTS) for run in runs.values())


def test_same_bits_as_on_every_other_machine(runs):
    run = runs[LEVELS[0]]
    assert not differing_from_golden(run["inputs"], run["digests"]["1"])


def test_other_inputs_are_told_from_other_results(runs):
    run = runs[LEVELS[0]]
    results = run["digests"]["1"]
    first, second, *_ = results
    assert differing_from_golden(run["inputs"], results | {first: "0"}) == [first]
    assert differing_from_golden(run["inputs"], {k: results[k] for k in results if k != second})
    (said,) = differing_from_golden("0", results | {first: "0"})
    assert said.startswith("the inputs")


def test_digests_tell_the_cases_apart(runs):
    """A hash that ignored its input would agree with itself everywhere."""
    digests = runs[LEVELS[0]]["digests"]["1"]
    assert len(set(digests.values())) == len(digests)


@pytest.mark.skipif(not CONFIG["openmp"], reason="built without OpenMP")
def test_threads_were_really_used(runs):
    for level, run in runs.items():
        if run["started"] is None:
            pytest.skip("the system does not tell how many threads there are")
        assert run["started"] >= max(THREAD_COUNTS) - 1, level
