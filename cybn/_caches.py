"""What a call may count on of the processor's caches.

What the system reports is a hint: a virtual machine with two cores reports the 480 MiB of a socket,
which its other tenants use as well. There a call that believed it took 1.25 to 1.9 times as long as
one that took the cache for any size from 2 to 64 MiB.
"""

import os
import re
from os.path import join
from typing import NamedTuple

from ._system import read_text

MEBI = 1 << 20
# The most of the last level that is taken, and of the second one for a core.
MOST = 32 * MEBI
MOST_OF_CORE = 4 * MEBI
# The least that is taken of a last level that is larger; also where nothing is reported.
LEAST = 8 * MEBI
LEAST_OF_CORE = MEBI // 2
# Looking at one processor opens some twenty files, and machines have hundreds.
MOST_LOOKED_AT = 8
MOST_FORCED = 1 << 40
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Caches(NamedTuple):
    """Sizes in bytes: those that are taken, then those that the system reports (or None)."""

    core: int
    """What a core has of the second level."""
    last: int
    """What a call has of the last level."""
    reported_core: int | None
    reported_last: int | None


class _Level(NamedTuple):
    number: int
    size: int
    shared: frozenset  # the processors that share it


def find_caches(usable, granted):
    """Return the caches of the processors `usable`, of which `granted` may run at a time."""
    found = read_caches("/", usable, granted)
    forced = _forced_size(os.environ.get("CYBN_CACHE_SIZE"))
    return found if forced is None else found._replace(last=forced)


def read_caches(root, usable, granted):
    """Return what /sys, looked for in the folder `root`, says of the caches."""
    usable = sorted(usable)
    some = usable[:: -(-len(usable) // MOST_LOOKED_AT)]
    looked_at = [levels for cpu in some if (levels := _read_levels(root, cpu))]
    if not looked_at:
        return Caches(LEAST_OF_CORE, LEAST, None, None)
    # Cores differ (on hybrid laptops the small ones may have no third level). Pieces of work have
    # to fit each of them. A call is spread over many.
    core, reported_core = min(_core_share(levels) for levels in looked_at)
    last = max((levels[-1] for levels in looked_at), key=lambda level: level.size)
    # Processors that this process may not use work for others, who use their share. But often they
    # rest, so it counts on LEAST, however small its own share is.
    ours = len(last.shared.intersection(usable))
    share = last.size * min(ours, granted) // len(last.shared)
    return Caches(
        min(core, MOST_OF_CORE),
        min(last.size, MOST, max(share, LEAST)),
        reported_core,
        last.size,
    )


def _core_share(levels):
    """Return what a core has of the second level, and the size of all of it."""
    first, second = levels[0], next(level for level in levels if level.number == 2)
    threads = len(first.shared) if first.number == 1 else 1
    return second.size * min(threads, len(second.shared)) // len(second.shared), second.size


def _read_levels(root, cpu):
    """Return the data caches of a processor, the first level first, or nothing without a second."""
    levels = []
    folder = join(root, f"sys/devices/system/cpu/cpu{cpu}/cache")
    indices = os.listdir(folder) if os.path.isdir(folder) else []
    for index in (name for name in indices if name.startswith("index")):
        number, size, kind, shared = (
            read_text(join(folder, index, name)).strip()
            for name in ("level", "size", "type", "shared_cpu_list")
        )
        if number in ("1", "2", "3", "4") and kind != "Instruction" and _size(size):
            levels.append(_Level(int(number), _size(size), _processors(shared) | {cpu}))
    return sorted(levels) if any(level.number == 2 for level in levels) else []


def _size(text):
    """Return the bytes that a text such as 32768K says, or None."""
    match = re.fullmatch("([0-9]{1,15})([KMG]?)", text.strip().upper())
    return int(match[1]) * UNITS[match[2]] if match else None


def _processors(text):
    """Return the numbers in a list such as 0-3,8."""
    ranges = re.findall("([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    return frozenset(
        cpu for first, last in ranges for cpu in range(int(first), int(last or first) + 1)
    )


def _forced_size(text):
    """Return the size that CYBN_CACHE_SIZE says, None where it is not set."""
    if not text:
        return None
    size = _size(text)
    if not size or size > MOST_FORCED:
        raise ImportError(
            f"CYBN_CACHE_SIZE: expected bytes, or a number with K, M or G, such as 32M, from 1 to "
            f"1024G, got {text!r}"
        )
    return size
