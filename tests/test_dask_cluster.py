"""cybn.dask on workers, and the recipes for other pools of workers."""

import doctest
import os
import re
import subprocess
import sys

from dask_peer import assert_same_bits, drawn, needs, refused

import dask.array as da
import numpy as np
import pytest
from dask.delayed import delayed
from distributed import Client, LocalCluster
from levels import TESTS
from numpy.testing import assert_array_equal

import cybn
import cybn.dask


@pytest.fixture(scope="module")
def client():
    """Of two processes of two threads each."""
    cluster = LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None)
    with cluster, Client(cluster, timeout=30, set_as_default=False) as client:
        yield client


class TestOnACluster:
    """Each call ends by itself, or with an error after a minute."""

    def test_bits_are_those_of_one_process(self, rng, client):
        _, axis, array = drawn(rng, "NCHW, all")
        for where in None, array > 9:
            lazy = cybn.dask.moments(array, axis, where)
            actual = client.compute(lazy).result(timeout=60)
            assert_same_bits(actual, lazy.compute())
            y = client.compute(cybn.dask.normalize(array, lazy)).result(timeout=60)
            assert_array_equal(y, cybn.dask.normalize(array, actual).compute())

    def test_by_a_layer(self, rng, client):
        x, axis, array = drawn(rng, "NHWC, all")
        bn = cybn.BatchNorm(17, axis=axis)
        bn(x)
        y = client.compute(cybn.dask.normalize(array, bn)).result(timeout=60)
        assert_array_equal(y, bn.eval()(x))

    def test_of_chunks_that_are_there(self, rng, client):
        _, axis, array = drawn(rng, "N, C, both")
        there = client.persist(array)
        actual = client.compute(cybn.dask.moments(there, axis)).result(timeout=60)
        assert_same_bits(actual, cybn.dask.moments(array, axis).compute())

    def test_an_error_of_a_worker_arrives(self, client):
        broken = da.from_delayed(delayed(np.ones)((3, 2), object), (3, 2), float)
        with refused(TypeError, "x", "objects"):
            client.compute(cybn.dask.moments(broken)).result(timeout=60)


class TestPage:
    """What docs/dask_cluster.md shows."""

    PAGE = TESTS.parent / "docs" / "dask_cluster.md"

    def test_code_runs(self):
        failed, attempted = doctest.testfile(str(self.PAGE), module_relative=False)
        assert attempted > 10
        assert failed == 0

    @pytest.mark.parametrize("package", ["ray", "pyspark"])
    def test_recipe(self, rng, tmp_path, package):
        """pyspark also needs Java, so that it is nowhere a requirement."""
        (pytest.importorskip if package == "pyspark" else needs)(package)
        (tmp_path / "pieces").mkdir()
        pieces = rng.normal(9.0, 4.0, (5, 100, 3))
        for i, piece in enumerate(pieces):
            np.save(tmp_path / "pieces" / f"{i}.npy", piece)
        blocks = re.findall(r"```python\n(.*?)```", self.PAGE.read_text(), re.DOTALL)
        (code,) = [each for each in blocks if re.search(rf"^(import|from) {package}\b", each, re.M)]
        code += "np.savez('total.npz', count=total.count, mean=total.mean, m2=total.m2)\n"
        (tmp_path / "recipe.py").write_text(code)
        settings = {"RAY_USAGE_STATS_ENABLED": "0", "PYSPARK_PYTHON": sys.executable}
        process = subprocess.run(
            [sys.executable, "recipe.py"],
            env=os.environ | settings | {"HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        with np.load(tmp_path / "total.npz") as total:
            actual = cybn.Moments(**total)
        assert_same_bits(actual, cybn.Moments.merge(map(cybn.moments, pieces)))
