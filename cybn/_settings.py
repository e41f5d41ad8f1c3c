"""What a call computes, apart from its arrays: checked once, and kept."""

from functools import lru_cache

from ._checks import check_settings
from ._runtime import kernels


def settings_of(training=True, momentum=0.0, eps=1e-5, centered=True):
    """Return the Settings of a call; raise if one of them is of a wrong type, or out of range."""
    try:
        return _settings_of(training, momentum, eps, centered)
    except TypeError:
        pass  # one of them cannot be looked up
    return _settings_of.__wrapped__(training, momentum, eps, centered)


@lru_cache(maxsize=1024, typed=True)
def _settings_of(training, momentum, eps, centered):
    return kernels.Settings(training, centered, *check_settings(training, momentum, eps))
