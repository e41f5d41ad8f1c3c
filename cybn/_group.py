"""Statistics over all members of a group, each of which has a part of the batch.

A member runs the kernels' first phase on its own part. All members gather what each has summed,
merge it in the order of their ranks, and run the second phase, each on its own part again: one
exchange in `batch_norm`, one in `backward`.

A group has

size : int
    How many members there are.
allgather(vector)
    Takes a float64 array of shape (n,), and returns one of shape (size, n), with the vectors of all
    members in the order of their ranks. n is the same for all members.

or it has ``Get_size()`` and ``Allgather(vector, result)``, as a communicator of mpi4py does, whose
lower-case ``allgather`` would pickle.

All members gather vectors of one length, WIDTH, whatever they have. So members who disagree, or who
have failed before, find that out together, where vectors of different lengths would be an error of
the transport, or no error at all. It has room for 1,029 channels, or 686 with a mask; what is left
of more channels follows in a second exchange, of a length that all members know by then.
"""

from functools import reduce

import numpy as np

from ._checks import FLOAT64, checked_int, insist
from ._geometry import batch_geometry
from ._moments import merged, moments_of
from ._normalize import Arrays, allocate, local_statistics, normalize_checked
from ._runtime import SERIAL, kernels

WIDTH = 2064
HEADER = "call", "channels", "dtype", "eps", "length", "count"
ROOM = WIDTH - len(HEADER)
CALLS = FAILED, FORWARD, BACKWARD = "an error", "forward", "backward"
DTYPES = "float16", "bfloat16", "float32", "float64"
DIFFER = -1  # in place of the count, where channels have counts of their own: behind the moments


def exchange_of(group):
    """Return the Exchange of a call, or None if the group has one member."""
    if hasattr(group, "Allgather") and hasattr(group, "Get_size"):
        size = group.Get_size()
    elif hasattr(group, "allgather") and hasattr(group, "size"):
        size = checked_int(group.size, "group.size", least=1)
    else:
        raise TypeError(
            "group: expected an mpi4py communicator, or an object with size and allgather, "
            f"got {type(group).__name__}"
        )
    return None if size == 1 else Exchange(group, size)


class Exchange:
    """What a member of a group has to do with the others in one call."""

    def __init__(self, group, size):
        self.group = group
        self.moments = None  # count, mean and m2 of the values of all members
        self._size = size
        self._begun = False

    def fail(self, error):
        """Tell the other members of an error, if they wait for this one."""
        if not self._begun:
            message = f"{type(error).__name__}: {error}".encode()[:ROOM]
            header = CALLS.index(FAILED), 0, 0, 0, len(message), 0
            self._gather(_padded(header, np.frombuffer(message, np.uint8)))

    def merge(self, x, geometry, mask, eps, arrays):
        """Give a call the statistics of all members' values, and return how many these are."""
        own = moments_of(local_statistics(x, geometry, mask))
        mean, m2, count = own.mean.reshape(-1), own.m2.reshape(-1), own.count
        behind = [] if isinstance(count, int) else [count.reshape(-1)]
        values = np.concatenate([mean, m2, *behind])
        header = FORWARD, mean.size, x.dtype.name, eps, DIFFER if behind else count
        counts, rows = self._share(header, values)
        self.moments = count, mean, m2 = _merge(counts, rows, mean.size)
        if np.any(count == 1):
            raise ValueError(
                "x: expected more than 1 value per channel over all members of the group when "
                "training, got 1; use training=False (a layer's eval()), or drop a last batch"
            )
        arrays.counts = count.astype(FLOAT64)
        with np.errstate(all="ignore"):
            var = m2 / np.maximum(arrays.counts, 1)
        arrays.merged = np.concatenate([mean, var])
        if np.any(counts == DIFFER):
            return count.reshape(geometry.statistics)
        return int(counts.sum())

    def track(self, arrays, settings, counters):
        """Update the running arrays of a member that has no values."""
        x = np.zeros((1, arrays.counts.size))
        empty = Arrays(x, None, None, None, arrays.running_mean, arrays.running_var)
        empty.merged, empty.counts = arrays.merged, arrays.counts
        geometry = batch_geometry(x.shape, 1)
        allocate(empty, geometry)
        normalize_checked(empty, geometry, settings, SERIAL, counters)

    def add(self, layout, settings, schedule, arrays):
        """Give a call of backward what all members have summed."""
        out, arrays.out = arrays.out, None
        channels = arrays.counts.size
        arrays.merged = np.zeros(2 * channels)
        if arrays.x.size:
            insist(kernels.backward(layout, settings, schedule, arrays))
        header = BACKWARD, channels, arrays.x.dtype.name, settings.eps, 0
        _, rows = self._share(header, arrays.merged)
        with np.errstate(all="ignore"):
            arrays.merged = reduce(np.add, rows[:, : 2 * channels])
        arrays.out = out

    def _share(self, header, values):
        """Return the counts and the values of all members, if they agree."""
        call, channels, dtype, eps, count = header
        header = CALLS.index(call), channels, DTYPES.index(dtype), eps, values.size, count
        rows = self._gather(_padded(header, values[:ROOM]))
        heads, rows = rows[:, : len(HEADER)], rows[:, len(HEADER) :]
        if np.any(heads[:, :4] != header[:4]):  # this member has not failed
            _check_failures(heads, rows)
            _check_agreement(heads)
        longest = int(heads[:, 4].max())
        if longest > ROOM:
            rest = np.zeros(longest - ROOM)
            rest[: max(0, values.size - ROOM)] = values[ROOM:]
            rows = np.concatenate([rows, self._gather(rest)], axis=1)
        return heads[:, 5], rows

    def _gather(self, vector):
        self._begun = True
        shape = self._size, vector.size
        if hasattr(self.group, "Allgather"):
            rows = np.empty(shape)
            self.group.Allgather(vector, rows)
            return rows
        rows = np.asarray(self.group.allgather(vector), FLOAT64)
        if rows.shape != shape:
            raise ValueError(f"group: expected shape {shape} from allgather, got {rows.shape}")
        return rows


def _padded(header, values):
    padding = np.zeros(ROOM - values.size)
    return np.concatenate([header, values, padding], dtype=FLOAT64)


def _merge(counts, rows, channels):
    """Return count, mean and m2 of all rows, merged in the order of Moments.merge."""
    mean, m2 = rows[:, :channels], rows[:, channels : 2 * channels]
    count = np.repeat(counts[:, None], channels, axis=1)
    own = counts == DIFFER
    count[own] = rows[own, 2 * channels : 3 * channels] if own.any() else 0
    parts = count.astype(np.int64), mean, m2
    while len(parts[0]) > 1:
        paired = len(parts[0]) & ~1
        both = merged(*([part[i:paired:2] for part in parts] for i in (0, 1)))
        pairs = zip(both, parts, strict=True)
        parts = [np.concatenate([pair, part[paired:]]) for pair, part in pairs]
    return [part[0] for part in parts]


def _check_failures(heads, rows):
    """Raise if a member has failed, with what it says."""
    for rank in np.flatnonzero(heads[:, 0] == CALLS.index(FAILED)):
        message = rows[rank, : int(heads[rank, 4])].astype(np.uint8).tobytes()
        raise ValueError(
            f"group: expected all members to join in, got an error on member {rank}: "
            f"{message.decode(errors='replace')}"
        )


def _check_agreement(heads):
    """Raise unless all members make the same call, of as many channels, of one dtype and eps."""
    shown = (lambda i: CALLS[int(i)]), int, (lambda i: DTYPES[int(i)]), float
    for column, (name, show) in enumerate(zip(HEADER, shown, strict=False)):
        values, ranks = np.unique(heads[:, column], return_index=True)
        if values.size > 1:
            each = sorted(zip(ranks, values, strict=True))
            got = ", ".join(f"{show(value)} on member {rank}" for rank, value in each)
            raise ValueError(f"group: expected the same {name} on all members, got {got}")
