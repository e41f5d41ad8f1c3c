"""The only place that stores running statistics, so that no interrupt leaves half of them."""

from collections import deque
from itertools import starmap
from operator import call, setitem

import numpy as np


def commit(arrays, *objects):
    """Store values into arrays, and attributes of objects: all or, if interrupted, none of them.

    Signal handlers run between two bytecodes, never inside of the one call that does it all.

    Parameters
    ----------
    arrays : iterable of (numpy.ndarray, array_like)
        Each with its new values, as many, which are rounded to its dtype.
    *objects : (object, dict)
        Each with new values of its attributes.
    """
    changes = [(setitem, array, ..., values) for array, values in map(_rounded, arrays)]
    for owner, attributes in objects:
        changes += [(setattr, owner, *each) for each in attributes.items()]
    deque(starmap(call, changes), maxlen=0)


def _rounded(pair):
    """Return a plain view of an array, and its new values in its shape and dtype."""
    array, values = map(np.asarray, pair)
    with np.errstate(all="ignore"):  # to infinity and 0, as the kernels round
        return array, values.reshape(array.shape).astype(array.dtype)
