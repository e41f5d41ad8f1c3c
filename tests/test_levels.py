"""Every CPU level gives right results, and a level is chosen as documented."""

import os
import pickle

import numpy as np
import pytest
from levels import CONFIG, LEVELS, OTHER_LEVELS, run_python, run_python_unchecked

import cybn
from cybn import _level

NUMERICAL_TESTS = [
    "test_reference.py",
    "test_forward.py",
    "test_backward.py",
    "test_exact.py",
    "test_exactness.py",
    "test_inputs.py",
    "test_norm_exact.py",
    "test_norm_inputs.py",
    "test_where.py",
    "test_tuple_axes.py",
    "test_moments.py",
    "test_half.py",
    "test_fused_half.py",
]


@pytest.mark.parametrize("level", OTHER_LEVELS)
def test_numerical_tests_pass_at_the_other_levels(level):
    """The level in use is tested by this very run."""
    run_python("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *NUMERICAL_TESTS, level=level)


@pytest.mark.parametrize("level", LEVELS)
def test_environment_variable_forces_a_level(level):
    code = "import cybn; print(cybn.show_config(mode='dict')['level'])"
    assert run_python("-c", code, level=level).strip() == level


@pytest.mark.parametrize("level", ["v9", "avx2", "V2 "])
def test_unknown_level_is_an_import_error(level):
    process = run_python_unchecked("-c", "import cybn", level=level)
    assert process.returncode == 1
    last_line = process.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: ")
    assert "CYBN_LEVEL" in last_line
    assert level in last_line


@pytest.mark.skipif("CYBN_LEVEL" in os.environ, reason="a level is forced")
def test_best_level_is_the_default():
    assert CONFIG["level"] == LEVELS[-1]


def test_level_in_use_is_one_of_the_levels():
    config = cybn.show_config(mode="dict")
    assert config["level"] in config["levels"]


@pytest.mark.parametrize(
    ("highest", "levels"),
    [(2, ("v2",)), (3, ("v2", "v3")), (4, ("v2", "v3", "v4")), (0, ("base",))],
)
def test_levels_up_to_what_the_processor_has(monkeypatch, highest, levels):
    monkeypatch.setattr(_level.native, "level", lambda: highest)
    assert _level._supported_levels() == levels


def test_processor_below_v2_is_an_import_error(monkeypatch):
    """`tools/emulate` shows it on such a processor."""
    monkeypatch.setattr(_level.native, "level", lambda: 1)
    with pytest.raises(ImportError, match="x86-64-v2"):
        _level._supported_levels()


PICKLED = """
import pickle, sys
import numpy as np, cybn
with open(sys.argv[1], "rb") as file:
    dy, caches = pickle.load(file)
print([cybn.backward(dy, cache).dx.tobytes().hex() for cache in caches])
print(sorted(name for name in sys.modules if "_kernels_" in name))
"""


@pytest.mark.parametrize("level", LEVELS)
def test_pickled_cache_is_used_at_any_level(rng, tmp_path, level):
    """Nothing of the level that has pickled it is loaded, where it might not run."""
    x, dy = rng.normal(size=(2, 6, 4, 3)).astype(np.float32)
    caches = [cybn.forward(x)[1], cybn.layer_norm(x)[1], cybn.group_norm(x, 2)[1]]
    path = tmp_path / "caches"
    path.write_bytes(pickle.dumps((dy, caches)))

    printed = run_python("-c", PICKLED, str(path), level=level).splitlines()

    assert printed[0] == str([cybn.backward(dy, cache).dx.tobytes().hex() for cache in caches])
    assert printed[1] == str([f"cybn._kernels_{level}"])
