"""show_config: how cybn was built, and what it runs with."""

import importlib.metadata
import os
from pathlib import Path

import pytest
from levels import CONFIG

import cybn
from cybn import _runtime

needs_openmp = pytest.mark.skipif(not CONFIG["openmp"], reason="built without OpenMP")
needs_maps = pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="not Linux")


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


@needs_openmp
def test_openmp_library_in_use_is_a_file():
    assert Path(cybn.show_config(mode="dict")["openmp_library"]).is_file()


@needs_openmp
@needs_maps
def test_openmp_library_in_use_is_one_of_those_loaded():
    config = cybn.show_config(mode="dict")
    assert config["openmp_library"] in config["openmp_libraries"]


MAPS = """\
7f00-7f01 r-xp 00000000 fe:00 11 /usr/lib/x86_64-linux-gnu/libgomp.so.1.0.0
7f01-7f02 rw-p 00001000 fe:00 11 /usr/lib/x86_64-linux-gnu/libgomp.so.1.0.0
7f02-7f03 rw-p 00000000 00:00 0
7f03-7f04 r-xp 00000000 fe:00 12 /a folder/cybn.libs/libgomp-24e2ab19.so.1.0.0
7f04-7f05 r-xp 00000000 fe:00 13 /opt/torch/lib/libiomp5.so
7f05-7f06 r-xp 00000000 fe:00 14 /usr/lib/libomp.so.5
7f06-7f07 r-xp 00000000 fe:00 15 /usr/lib/libomptarget.so
7f07-7f08 r-xp 00000000 fe:00 16 /usr/lib/libgompers.so
7f08-7f09 rw-p 00000000 00:00 0 [heap]
"""
LOADED = [
    "/a folder/cybn.libs/libgomp-24e2ab19.so.1.0.0",
    "/opt/torch/lib/libiomp5.so",
    "/usr/lib/libomp.so.5",
    "/usr/lib/x86_64-linux-gnu/libgomp.so.1.0.0",
]


@pytest.mark.parametrize(("lines", "several"), [(9, True), (2, False), (0, False)])
def test_several_openmp_libraries_are_told(monkeypatch, capsys, lines, several):
    maps = "".join(MAPS.splitlines(keepends=True)[:lines])
    cybn.show_config(mode="dict")  # what is read once has been read
    monkeypatch.setattr(_runtime, "read_text", {"/proc/self/maps": maps}.__getitem__)
    monkeypatch.setattr(_runtime, "get_num_threads", lambda: 1)
    cybn.show_config()
    assert ("Several OpenMP libraries" in capsys.readouterr().out) == several
    found = cybn.show_config(mode="dict")["openmp_libraries"]
    assert found == [path for path in LOADED if path in maps]


@needs_openmp
def test_threadpoolctl_sees_the_library_in_use_and_limits_it(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(_runtime, "_setting", None)
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "openmp"]
    assert CONFIG["openmp_library"] in [os.path.realpath(pool["filepath"]) for pool in pools]
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert cybn.get_num_threads() == 1
