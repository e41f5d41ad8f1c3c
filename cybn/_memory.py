"""The only place that chooses where the memory of a result comes from."""

from functools import cache

import numpy as np
from numpy import empty  # a look-up less in each small call

from . import _native_memory as native
from ._checks import checked_int
from ._system import memory_limit

# From here on: malloc hands memory back to the system at times, in a loop with each result.
LARGE = 1 << 20
# What is kept unless `set_kept_memory` says otherwise: a part of the memory that is granted, for
# other processes do the same, but no more than a large network's step leaves.
PART = 16
MOST = 2 << 30
# Whatever it says, no more than this part.
MOST_PART = 4

_setting = None


def empty_like(x, dtype=None):
    """Return an array of x's shape and dtype, or another, in C order, whose values are not set."""
    dtype = x.dtype if dtype is None else dtype
    return empty_array(x.shape, dtype, x.size * dtype.itemsize)


def empty_array(shape, dtype, nbytes):
    """Return an array of `nbytes` in C order, whose values are not set."""
    if nbytes < LARGE:
        return empty(shape, dtype)
    return np.ndarray(shape, dtype, native.Block(nbytes, _limit()))


@cache
def _granted():
    """Return the bytes of memory that this process may use, looked for when it is first asked."""
    limits = native.machine_memory(), memory_limit()
    return min(filter(None, limits), default=0)


def _limit():
    if _setting is None:
        return min(_granted() // PART, MOST)
    return min(_setting, _granted() // MOST_PART)


def kept_memory():
    """Return how many bytes of freed results are kept for the next ones."""
    return native.kept_memory()


def kept_memory_limit():
    """Return how many bytes may be kept now."""
    return native.kept_memory_limit(_limit())


def set_kept_memory(limit):
    """Set how much memory of freed results may be kept for the next ones.

    The system clears each page that it hands out, which for a large array takes as long as
    normalizing it. So the memory of results of 1 MiB and more is kept when their arrays are gone,
    and used again for results that need as much or up to an eighth less.

    What was freed last, up to a quarter of the limit, is held. The rest is lent to the system,
    which takes it as soon as it needs it (on Linux by ``MADV_FREE``); until then it counts as the
    process's own. What has gone unused while 256 other results were freed is given back. If there
    is no memory for a result, all of it is.

    Parameters
    ----------
    limit : int
        In bytes; 0 keeps nothing. The default is a sixteenth of the memory that is granted, at most
        2 GiB. Granted is the machine's memory, or the limit of the cgroup (such as a container) if
        that is less. More than a quarter of the granted memory is never kept, nor more than a 32nd
        of what RLIMIT_AS and RLIMIT_DATA leave to the process. ``show_config()`` shows the limit in
        effect.

    Raises
    ------
    TypeError, ValueError
        If `limit` is not an int, or out of range.

    Examples
    --------
    >>> import cybn
    >>> cybn.set_kept_memory(256 << 20)
    """
    global _setting
    _setting = checked_int(limit, "limit", least=0, most=2**63 - 1)
    native.set_kept_memory(_limit())
