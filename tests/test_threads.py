"""Setting the number of threads, calling from many threads, and show_config."""

import importlib.metadata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cybn


def test_default_is_one_or_more():
    assert cybn.get_num_threads() >= 1


@pytest.mark.parametrize("count", [1, 2, 3, 7, np.int64(2)])
def test_set_and_get(count):
    cybn.set_num_threads(count)
    assert cybn.get_num_threads() == count
    assert cybn.show_config(mode="dict")["num_threads"] == count


def test_context_restores_what_was_set():
    cybn.set_num_threads(3)
    with cybn.num_threads(2):
        assert cybn.get_num_threads() == 2
        with cybn.num_threads(5):
            assert cybn.get_num_threads() == 5
        assert cybn.get_num_threads() == 2
    assert cybn.get_num_threads() == 3


def test_context_restores_after_an_error():
    cybn.set_num_threads(3)
    with pytest.raises(KeyError), cybn.num_threads(2):
        raise KeyError
    assert cybn.get_num_threads() == 3


@pytest.mark.parametrize(
    ("count", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (10**30, ValueError),
        (1.5, TypeError),
        ("2", TypeError),
        ([1], TypeError),
    ],
)
def test_bad_count_changes_nothing(count, error):
    cybn.set_num_threads(3)
    with pytest.raises(error, match=r"\bn\b|threads"):
        cybn.set_num_threads(count)
    with pytest.raises(error, match=r"\bn\b|threads"), cybn.num_threads(count):
        pytest.fail("the body must not run")
    assert cybn.get_num_threads() == 3


def test_calls_from_many_threads_at_once(rng):
    x = rng.normal(size=(64, 8, 40, 40))
    expected, _ = cybn.forward(x)

    def call(_):
        y, cache = cybn.forward(x)
        return y, cybn.backward(x, cache).dx

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(call, range(8)))

    for y, dx in results:
        assert_array_equal(y, expected)
        assert_array_equal(dx, results[0][1])


def test_show_config_as_dict():
    config = cybn.show_config(mode="dict")
    assert config["version"] == cybn.__version__ == importlib.metadata.version("cybn")
    assert config["level"] in config["levels"]
    assert isinstance(config["openmp"], bool)


def test_show_config_prints(capsys):
    assert cybn.show_config() is None
    printed = capsys.readouterr().out
    for key in ("version", "level", "openmp", "num_threads"):
        assert key in printed
    assert cybn.show_config(mode="dict")["version"] in printed


def test_show_config_with_another_mode():
    with pytest.raises(ValueError, match=r"\bmode\b"):
        cybn.show_config(mode="xml")
