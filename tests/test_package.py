"""The package as a whole: what importing it brings in, its names, its documentation."""

import doctest
import json
import pkgutil

import pytest
from levels import TESTS, run_python, run_python_unchecked

import cybn

PUBLIC_NAMES = {
    "BatchNorm",
    "Cache",
    "Gradients",
    "GroupNorm",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "Moments",
    "RMSNorm",
    "backward",
    "calibrate",
    "fold",
    "forward",
    "from_flax",
    "from_keras",
    "from_onnx",
    "from_torch",
    "get_num_threads",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "moments",
    "num_threads",
    "rms_norm",
    "set_kept_memory",
    "set_num_threads",
    "show_config",
    "weight_standardize",
}
# And the packages that they serve.
ADAPTERS = {"cybn.dask": "dask.array", "cybn.sklearn": "sklearn", "cybn.torch": "torch"}
PYTHON_MODULES = sorted(  # but those whose examples need other libraries: test_from_*.py runs them
    f"cybn.{module.name}"
    for module in pkgutil.iter_modules(cybn.__path__)
    if not module.name.startswith(("_kernels", "_native", "_interop_"))
)


def test_public_names():
    assert set(cybn.__all__) >= PUBLIC_NAMES
    for name in cybn.__all__:
        assert hasattr(cybn, name), name


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_public_names_are_documented(name):
    assert getattr(cybn, name).__doc__


def test_import_brings_in_nothing_but_numpy():
    """Neither another package, nor a part of the standard library that NumPy does without."""
    code = """
import sys, json, numpy
before = set(sys.modules)
import cybn
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    packages = {name.partition(".")[0] for name in json.loads(run_python("-c", code))}
    assert "cybn" in packages
    cython_bookkeeping = {name for name in packages if name.startswith(("cython_", "_cython_"))}
    assert packages - cython_bookkeeping <= {"cybn", "numpy"}


def test_numbers_of_16_bit_do_not_import_ml_dtypes():
    code = "import sys, numpy, cybn; cybn.BatchNorm(3)(numpy.ones((4, 3), numpy.float16))"
    run_python("-c", f"{code}; assert 'ml_dtypes' not in sys.modules")


def test_what_is_imported_when_it_is_asked_for():
    """Functions that a program needs once; they import no package that they serve."""
    code = """
import sys, cybn
names = {"fold", "from_flax", "from_keras", "from_onnx", "from_torch"}
assert not any(name.startswith(("cybn._interop", "cybn._fold")) for name in sys.modules)
assert names < set(dir(cybn))
for name in names:
    assert getattr(cybn, name) is getattr(cybn, name)
    assert getattr(cybn, name).__name__ == name
assert not {"flax", "jax", "keras", "onnx", "torch"} & set(sys.modules)
try:
    cybn.from_nowhere
except AttributeError as error:
    assert str(error) == "module 'cybn' has no attribute 'from_nowhere'"
else:
    raise AssertionError
"""
    run_python("-c", code)


def test_a_build_on_windows_is_refused_in_one_sentence():
    code = """
import runpy, sys, sysconfig
from unittest.mock import MagicMock
sys.modules |= {name: MagicMock() for name in ("Cython", "Cython.Build", "setuptools")}
sysconfig.get_platform = lambda: "win-amd64"
runpy.run_path(sys.argv[1])
"""
    process = run_python_unchecked("-c", code, str(TESTS.parent / "setup.py"))
    assert process.returncode == 1
    (said,) = process.stderr.splitlines()
    assert said.startswith("cybn: expected gcc or clang on a POSIX system, got Windows")


@pytest.mark.parametrize("name", ["cybn", *PYTHON_MODULES])
def test_examples_in_docstrings(name):
    if name in ADAPTERS:
        pytest.importorskip(ADAPTERS[name])
    module = __import__(name, fromlist=["*"])
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES - {"Gradients"}))
def test_docstring_has_an_example(name):
    assert doctest.DocTestParser().get_examples(getattr(cybn, name).__doc__)
