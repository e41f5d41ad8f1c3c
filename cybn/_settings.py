"""What a call computes, apart from its arrays: checked once, and kept."""

from functools import lru_cache

from ._checks import check_settings, checked_slope
from ._runtime import kernels

ACTIVATIONS = [name for name in kernels.ACTIVATION_NAMES if name not in kernels.WITH_SLOPE]
EXPECTED = ", ".join(
    ["None", *map(repr, ACTIVATIONS), *(f"({name!r}, slope)" for name in kernels.WITH_SLOPE)]
)


def settings_of(training=True, momentum=0.0, eps=1e-5, centered=True, activation=None):
    """Return the Settings of a call; raise if one of them is of a wrong type, or out of range."""
    try:
        return known_settings(training, momentum, eps, centered, activation)
    except TypeError:
        pass  # one of them cannot be looked up
    return known_settings.__wrapped__(training, momentum, eps, centered, activation)


@lru_cache(maxsize=1024, typed=True)
def known_settings(training, momentum, eps, centered, activation):
    """As `settings_of`; but what cannot be looked up is an error that does not say which it is."""
    momentum, eps = check_settings(training, momentum, eps)
    return kernels.Settings(training, centered, momentum, eps, *checked_activation(activation))


def checked_activation(activation):
    """Return the name of an activation, or None, and its slope below 0."""
    if activation is None:
        return None, 0.0
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return _plain(activation), 0.0
    if isinstance(activation, tuple) and len(activation) == 2:
        name, slope = activation
        if isinstance(name, str) and name in kernels.WITH_SLOPE:
            return _plain(name), checked_slope(slope)
    error = ValueError if isinstance(activation, (str, tuple)) else TypeError
    raise error(f"activation: expected {EXPECTED}, got {activation!r}")


def _plain(name):
    """Return a name as a str, which that of NumPy or of an enumeration is not."""
    return next(known for known in kernels.ACTIVATION_NAMES if known == name)
