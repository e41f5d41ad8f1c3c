"""What the system tells in files: limits of cgroups.

A process is in one group of each hierarchy of cgroups, and the limits of all groups above that
one hold for it, too. In version 1 a controller has a hierarchy of its own; in version 2 all share
one. Of a hierarchy often only a part is mounted: in a container, that below its own group.
"""

import re
from os.path import join

# What version 1 says for "unlimited" is the largest number of bytes in whole pages.
UNLIMITED = 1 << 62
# /proc/self/cgroup names the controllers of each hierarchy, and for version 2 none.
VERSION_2 = ""


def read_text(path):
    """Return the text of a file, none if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def processors(root="/"):
    """Return the processors that the cgroups grant, rounded up, or None.

    `root` is the folder in which /proc and /sys are looked for.
    """
    granted = [read_text(join(group, "cpu.max")) for group in _groups(VERSION_2, root)]
    granted += [
        read_text(join(group, "cpu.cfs_quota_us")) + read_text(join(group, "cpu.cfs_period_us"))
        for group in _groups("cpu", root)
    ]
    pairs = [text.split() for text in granted if re.fullmatch(r"\d+\s+[1-9]\d*\s*", text)]
    return min((max(1, -(-int(quota) // int(period))) for quota, period in pairs), default=None)


def memory_limit(root="/"):
    """Return the bytes of memory that the cgroups grant, or None."""
    groups = _groups(VERSION_2, root)
    files = [join(group, name) for group in groups for name in ("memory.max", "memory.high")]
    files += [join(group, "memory.limit_in_bytes") for group in _groups("memory", root)]
    limits = [int(text) for text in map(read_text, files) if re.fullmatch(r"\d+\s*", text)]
    return min((limit for limit in limits if limit < UNLIMITED), default=None)


def _groups(controller, root):
    """Return the folders of this process's group and of those above it, as far as mounted."""
    own = _own_group(controller, root)
    groups = []
    for top, mounted_at in _mounts(controller, root):
        below = own[len(top) :] if f"{own}/".startswith(f"{top}/") else ""
        names = [name for name in below.split("/") if name]
        if ".." in names:  # outside of what the process's namespace shows
            names = []
        folder = join(root, mounted_at.lstrip("/"))
        groups += [join(folder, *names[:depth]) for depth in range(len(names), -1, -1)]
    return groups


def _own_group(controller, root):
    lines = re.findall("(?m)^[0-9]+:([^:]*):(.*)", read_text(join(root, "proc/self/cgroup")))
    own = [group for controllers, group in lines if controller in controllers.split(",")]
    return own[0].rstrip("/") if own else ""


def _mounts(controller, root):
    """Return which group each mount of the hierarchy shows at its top, and where it is mounted."""
    mounts = read_text(join(root, "proc/self/mountinfo"))
    line = r"(?m)^\S+ \S+ \S+ (\S+) (\S+) .*?- (cgroup2?) \S* (\S+)$"
    return [
        (_unescaped(top).rstrip("/"), _unescaped(mounted_at))
        for top, mounted_at, kind, options in re.findall(line, mounts)
        if (kind == "cgroup2" if controller == VERSION_2 else controller in options.split(","))
    ]


def _unescaped(path):
    """Return a path of mountinfo, where a space is written as a backslash and 040."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)
