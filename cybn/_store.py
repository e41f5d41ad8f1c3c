"""Values that are stored: rounded once, and all of a call's or none."""

from collections import deque
from itertools import starmap
from operator import call, setitem

import numpy as np

from ._checks import insist, is_bfloat16
from ._runtime import kernels


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
    changes = [(setitem, array, ..., values) for array, values in map(_change, arrays)]
    for owner, attributes in objects:
        changes += [(setattr, owner, *each) for each in attributes.items()]
    deque(starmap(call, changes), maxlen=0)


def _change(pair):
    """Return a plain view of an array, and its new values in its shape and dtype."""
    array, values = map(np.asarray, pair)
    return array, rounded(values.reshape(array.shape), array.dtype)


def rounded(values, dtype):
    """Return a copy in a dtype, rounded once, as the kernels round: to infinity and 0, too."""
    if is_bfloat16(dtype):  # ml_dtypes goes by way of float32
        result = np.empty(values.shape, dtype.newbyteorder("="))
        plain = values if kernels.is_plain(values) else np.array(values, np.float64, order="C")
        insist(kernels.round_to(result, plain))
        return result
    with np.errstate(all="ignore"):
        return values.astype(dtype)
