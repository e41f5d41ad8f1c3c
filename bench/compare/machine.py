"""Description of the machine and the software that a run was measured on."""

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_PACKAGES = (
    "cybn",
    "numpy",
    "torch",
    "onednn-cpu-gomp",
    "onnxruntime",
    "jax",
    "jaxlib",
    "scikit-learn",
)


def describe():
    """Facts that a reader needs to compare a run with another.

    Returns
    -------
    dict
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "caches": _caches(),
        "memory": memory(),
        "load_average": os.getloadavg()[0],
        "huge_pages": _HUGE_PAGES.read_text().strip() if _HUGE_PAGES.exists() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": _versions(),
    }


def memory():
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (s.partition(":") for s in lines)}
    if "model name" not in facts:
        return platform.processor()
    # A virtual machine may hide which model it is, but for the numbers.
    numbers = f"family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}"
    return f"{facts['model name']} ({numbers})"


def _caches():
    """Sizes as the system writes them, by level and type: {"L1 Data": "32K", ...}."""
    caches = {}
    for index in sorted(_CACHES.glob("index*")):
        level, kind, size = (
            (index / name).read_text().strip() for name in ("level", "type", "size")
        )
        caches[f"L{level} {kind}"] = size
    return caches


def _versions():
    installed = {
        distribution.name.lower(): distribution.version for distribution in metadata.distributions()
    }
    return {name: installed[name] for name in _PACKAGES if name in installed}
