"""The only place that chooses where the memory of a result comes from."""

import numpy as np

from . import _native_memory as native
from ._checks import checked_int

# From here on malloc hands memory back to the system at times, and NumPy asks for huge pages.
LARGE = 4 << 20


def empty_like(x):
    """Return an array of x's shape and dtype, in C order, whose values are not set."""
    nbytes = x.nbytes
    if nbytes < LARGE:
        return np.empty(x.shape, x.dtype)
    return np.ndarray(x.shape, x.dtype, native.Block(nbytes))


def kept_memory():
    """Return how many bytes of freed results are kept for the next ones."""
    return native.kept_memory()[0]


def set_kept_memory(limit):
    """Set how much memory of freed results may be kept for the next ones.

    The system clears each page that it hands out, which for a large array takes as long as
    normalizing it. So results of 4 MiB and more are made in memory that is used again when their
    arrays are gone. What was freed last, up to a quarter of the limit, is held. The rest is lent to
    the system, which takes it as soon as it needs it (on Linux ``MADV_FREE``); until then it counts
    as the process's own.

    Parameters
    ----------
    limit : int
        In bytes; 0 keeps nothing. At first it is a sixteenth of the machine's memory.

    Raises
    ------
    TypeError, ValueError
        If `limit` is not an int, or out of range.

    Examples
    --------
    >>> import cybn
    >>> cybn.set_kept_memory(256 << 20)
    """
    native.set_kept_memory(checked_int(limit, "limit", least=0, most=2**63 - 1))
