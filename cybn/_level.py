"""The only place that chooses a CPU level.

Imported before NumPy, which may crash where this refuses.
"""

import os

from . import _native_runtime as native


def _supported_levels():
    """Return the names of the compiled levels that this processor can run, lowest first."""
    highest = native.level()
    if highest == 0:
        return ("base",)
    if highest == 1:
        raise ImportError("cybn: expected a processor of level x86-64-v2 or above, got x86-64-v1")
    return tuple(f"v{n}" for n in range(2, highest + 1))


def _choose_level():
    forced = os.environ.get("CYBN_LEVEL") or LEVELS[-1]
    if forced not in LEVELS:
        raise ImportError(
            f"CYBN_LEVEL: expected a level that this processor supports, "
            f"one of {', '.join(LEVELS)}, got {forced!r}"
        )
    return forced


LEVELS = _supported_levels()
LEVEL = _choose_level()
