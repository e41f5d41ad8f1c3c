"""Statistics over all members of a group, each of which has a part of the batch.

In each direction a member makes the kernels' first phase of its own part; all gather what it gave,
merge it in the order of their ranks, and go on with the second phase.
"""

from functools import reduce

import numpy as np

from ._checks import FLOAT64, checked_int, insist
from ._moments import Moments, moments_of
from ._normalize import empty_batch, local_statistics, normalize_checked
from ._runtime import SERIAL, kernels

# All members gather vectors of this length, whatever they have, so that those who disagree, or have
# failed, find out together. What is longer, they gather in a second exchange when all agree on it.
WIDTH = 2064
FAILED, FORWARD, BACKWARD = range(3)
CALLS = "an error", "forward", "backward"
HEADER = "call", "length", "channels", "dtype", "eps", "count"
ROOM = WIDTH - len(HEADER)
DTYPES = "float16", "bfloat16", "float32", "float64"
DIFFER = -1.0  # counts of the channels, which then come behind the moments


def exchange_of(group):
    """Return an Exchange for a call, or None if a group has one member."""
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
        self.moments = None  # of the values of all
        self._size = size
        self._begun = False

    def fail(self, error):
        """Tell the others about an error, unless they have heard of this member in the call."""
        if not self._begun:
            message = f"{type(error).__name__}: {error}".encode()[:ROOM]
            self._gather(_padded([FAILED, len(message)], np.frombuffer(message, np.uint8)))

    def merge(self, x, geometry, mask, settings, arrays):
        """Give a call the moments of all members' values, and return how many there are."""
        own = moments_of(local_statistics(x, geometry, mask))
        parts = [own.mean.reshape(-1), own.m2.reshape(-1)]
        count = own.count
        if not isinstance(count, int):
            parts, count = [*parts, count.reshape(-1)], DIFFER
        rows = self._share(FORWARD, parts, x.dtype, settings.eps, count)
        channels = len(parts[0])
        merged = Moments.merge(_moments_in(row, channels) for row in rows)
        if np.any(np.equal(merged.count, 1)):
            raise ValueError(
                "x: expected more than 1 value per channel, counted over all members of the group, "
                "when training, got 1; use training=False (a layer's eval()), or drop a last batch"
            )
        count = merged.count
        with np.errstate(all="ignore"):
            arrays.merged = np.concatenate([merged.mean, merged.m2 / np.maximum(count, 1)])
        arrays.counts = np.broadcast_to(np.asarray(count, FLOAT64), channels).copy()
        self.moments = merged
        return count if isinstance(count, int) else count.reshape(geometry.statistics)

    def track(self, arrays, settings, counters):
        """Update the running arrays of a member that has no values."""
        empty = empty_batch(arrays)
        normalize_checked(*empty, settings, SERIAL, counters)

    def add(self, layout, settings, schedule, arrays):
        """Give a call of backward what all members have summed."""
        out, arrays.out = arrays.out, None
        arrays.merged = np.zeros(2 * len(arrays.counts))
        if arrays.x.size:
            insist(kernels.backward(layout, settings, schedule, arrays))
        rows = self._share(BACKWARD, [arrays.merged], arrays.x.dtype, settings.eps, 0)
        with np.errstate(all="ignore"):
            arrays.merged = reduce(np.add, (values for _, values in rows))
        arrays.out = out

    def _share(self, call, parts, dtype, eps, count):
        """Return (header, values) of each member, if all agree."""
        values = np.concatenate(parts)
        header = call, len(values), len(parts[0]), DTYPES.index(dtype.name), eps, count
        rows = self._gather(_padded(header, values[:ROOM]))
        heads, first = rows[:, : len(HEADER)], rows[:, len(HEADER) :]
        _check_failures(heads, first)
        _check_agreement(heads)
        lengths = heads[:, HEADER.index("length")].astype(np.int64)
        if lengths.max() > ROOM:
            rest = np.zeros(lengths.max() - ROOM)
            rest[: max(0, len(values) - ROOM)] = values[ROOM:]
            first = np.concatenate([first, self._gather(rest)], axis=1)
        return [(head, row[:n]) for head, row, n in zip(heads, first, lengths, strict=True)]

    def _gather(self, vector):
        self._begun = True
        shape = self._size, len(vector)
        if hasattr(self.group, "Allgather"):
            rows = np.empty(shape)
            self.group.Allgather(vector, rows)
            return rows
        rows = np.asarray(self.group.allgather(vector), FLOAT64)
        if rows.shape != shape:
            raise ValueError(f"group: expected shape {shape} from allgather, got {rows.shape}")
        return rows


def _padded(header, values):
    vector = np.zeros(WIDTH)
    vector[: len(header)] = header
    vector[len(HEADER) : len(HEADER) + len(values)] = values
    return vector


def _moments_in(row, channels):
    head, values = row
    count = head[HEADER.index("count")]
    count = values[2 * channels :].astype(np.int64) if count == DIFFER else int(count)
    return Moments(count, values[:channels], values[channels : 2 * channels])


def _check_failures(heads, values):
    """Raise if a member has failed, with what it says."""
    for rank in np.flatnonzero(heads[:, 0] == FAILED):
        message = values[rank, : int(heads[rank, 1])].astype(np.uint8).tobytes()
        raise ValueError(
            f"group: expected all members to join in, got an error on member {rank}: "
            f"{message.decode(errors='replace')}"
        )


def _check_agreement(heads):
    """Raise unless all members make the same call, of as many channels, of one dtype and eps."""
    names = {"call": CALLS.__getitem__, "dtype": DTYPES.__getitem__, "channels": str}
    for name in ("call", "channels", "dtype", "eps"):
        values, ranks = np.unique(heads[:, HEADER.index(name)], return_index=True)
        if len(values) > 1:
            show = (lambda value: str(float(value))) if name == "eps" else None
            got = ", ".join(
                f"{show(value) if show else names[name](int(value))} on member {rank}"
                for rank, value in sorted(zip(ranks, values, strict=True))
            )
            raise ValueError(f"group: expected the same {name} on all members, got {got}")
