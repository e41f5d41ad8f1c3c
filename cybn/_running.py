"""The only place that stores running statistics, so that no interrupt leaves half of them."""

from collections import deque
from itertools import starmap
from operator import setitem

import numpy as np


def commit(arrays, *dicts):
    """Store values into arrays, and entries into dicts: all of them or, if interrupted, none.

    Signal handlers run between two bytecodes, never inside of the one call that does it all.

    Parameters
    ----------
    arrays : sequence of (numpy.ndarray, array_like)
        Each with its new values, as many, which are rounded to its dtype.
    *dicts : (dict, dict)
        Each with its new entries.
    """
    changes = [(array, ..., values) for array, values in map(_rounded, arrays)]
    changes += [(target, *entry) for target, entries in dicts for entry in entries.items()]
    deque(starmap(setitem, changes), maxlen=0)


def _rounded(pair):
    """Return a plain view of an array, and its new values in its shape and dtype."""
    array, values = map(np.asarray, pair)
    with np.errstate(over="ignore"):  # to infinity, as the kernels round
        return array, values.reshape(array.shape).astype(array.dtype)
