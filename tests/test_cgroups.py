"""The limits of cgroups, on made-up machines."""

import pytest
from trees import write_tree

from cybn import _system

MEBI = 1 << 20
UNLIMITED = (1 << 63) - 4096  # in version 1


def mounts(*described):
    """/proc/self/mountinfo of mounts (top, where, kind, options)."""
    return "".join(
        f"{number} 23 0:{number} {top} {where} rw,relatime shared:9 - {kind} cgroup {options}\n"
        for number, (top, where, kind, options) in enumerate(
            [("/", "/", "ext4", "rw"), *described], start=30
        )
    )


V1, V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
CPU = "/sys/fs/cgroup/cpu,cpuacct"
VERSION_1 = mounts(
    ("/", "/sys/fs/cgroup/cpuset", "cgroup", "rw,cpuset"),
    ("/", V1, "cgroup", "rw,memory"),
    ("/", CPU, "cgroup", "rw,cpu,cpuacct"),
    ("/", "/sys/fs/cgroup/unified", "cgroup2", "rw"),
)
VERSION_2 = mounts(("/", V2, "cgroup2", "rw,nsdelegate,memory_recursiveprot"))
OWN_1 = "9:name=systemd:/\n4:memory:{0}\n2:cpu,cpuacct:{0}\n0::/\n"


def version_1(limits):
    return {f"{group}/memory.limit_in_bytes": f"{limit}\n" for group, limit in limits.items()}


def version_2(limits):
    return {f"{group}/memory.max": f"{limit}\n" for group, limit in limits.items()}


MEMORY = {
    "version 1, flat": (VERSION_1, OWN_1.format("/"), version_1({V1: 300 * MEBI}), 300 * MEBI),
    "version 1, unlimited": (VERSION_1, OWN_1.format("/"), version_1({V1: UNLIMITED}), None),
    "version 1, nested": (
        VERSION_1,
        OWN_1.format("/a/b"),
        version_1(
            {V1: UNLIMITED, f"{V1}/a": 500 * MEBI, f"{V1}/a/b": 400 * MEBI, f"{V1}/a/b/c": MEBI}
        ),
        400 * MEBI,
    ),
    "version 1, the parent is tighter": (
        VERSION_1,
        OWN_1.format("/a/b"),
        version_1({V1: UNLIMITED, f"{V1}/a": 200 * MEBI, f"{V1}/a/b": 400 * MEBI}),
        200 * MEBI,
    ),
    "version 1, in a container, which sees its own group at the top": (
        mounts(("/docker/0a1b", V1, "cgroup", "ro,memory")),
        OWN_1.format("/docker/0a1b"),
        version_1({V1: 300 * MEBI}),
        300 * MEBI,
    ),
    "version 1, in a container, in a group below its own": (
        mounts(("/docker/0a1b", V1, "cgroup", "ro,memory")),
        OWN_1.format("/docker/0a1b/job"),
        version_1({V1: 300 * MEBI, f"{V1}/job": 100 * MEBI}),
        100 * MEBI,
    ),
    "version 1, in a container, where the path of the group does not exist": (
        VERSION_1,
        OWN_1.format("/docker/0a1b"),
        version_1({V1: 300 * MEBI}),
        300 * MEBI,
    ),
    "another group has a limit": (
        mounts(("/docker/0a", V1, "cgroup", "ro,memory")),
        OWN_1.format("/docker/0a1b"),
        version_1({V1: UNLIMITED, f"{V1}/1b": MEBI}),
        None,
    ),
    "a controller mounted elsewhere, with a space": (
        mounts(("/", r"/my\040groups", "cgroup", "rw,memory")),
        OWN_1.format("/a b"),
        version_1({"/my groups/a b": 7 * MEBI}),
        7 * MEBI,
    ),
    "version 2": (VERSION_2, "0::/\n", version_2({V2: 300 * MEBI}), 300 * MEBI),
    "version 2, max": (VERSION_2, "0::/a\n", version_2({f"{V2}/a": "max"}), None),
    "version 2, nested": (
        VERSION_2,
        "0::/slice/own\n",
        version_2({f"{V2}/slice": 300 * MEBI, f"{V2}/slice/own": "max"}),
        300 * MEBI,
    ),
    "version 2, in a container without a namespace": (
        VERSION_2,
        "0::/system.slice/docker-0a1b.scope\n",
        version_2({V2: 300 * MEBI}),
        300 * MEBI,
    ),
    "version 2, outside of the namespace": (
        VERSION_2,
        "0::/../../kernel\n",
        version_2({V2: 300 * MEBI, "/sys/kernel": MEBI, "/kernel": MEBI}),
        300 * MEBI,
    ),
    "version 2, the group is gone": (VERSION_2, "0::/a (deleted)\n", version_2({V2: MEBI}), MEBI),
    "nonsense": (
        "1 2\n- cgroup2\n\n" + VERSION_2,
        "x\n::\n0:/\n",
        version_2({V2: "a lot", f"{V2}/x": "-1"}),
        None,
    ),
    "nothing mounted": (mounts(), "", version_1({V2: MEBI, V1: MEBI}), None),
}


@pytest.mark.parametrize(("mounted", "own", "files", "expected"), MEMORY.values(), ids=MEMORY)
def test_memory_limit(tmp_path, mounted, own, files, expected):
    files = files | {"/proc/self/mountinfo": mounted, "/proc/self/cgroup": own}
    assert _system.memory_limit(write_tree(tmp_path, files)) == expected


def test_memory_above_which_the_system_slows_a_group_down_is_a_limit(tmp_path):
    files = {
        "/proc/self/mountinfo": VERSION_2,
        "/proc/self/cgroup": "0::/a\n",
        f"{V2}/a/memory.max": f"{300 * MEBI}\n",
        f"{V2}/a/memory.high": f"{200 * MEBI}\n",
    }
    assert _system.memory_limit(write_tree(tmp_path, files)) == 200 * MEBI


PROCESSORS = {
    "version 2": (VERSION_2, "0::/\n", {f"{V2}/cpu.max": "150000 100000\n"}, 2),
    "version 2, a whole number": (VERSION_2, "0::/\n", {f"{V2}/cpu.max": "300000 100000\n"}, 3),
    "version 2, less than one": (VERSION_2, "0::/\n", {f"{V2}/cpu.max": "10000 100000\n"}, 1),
    "version 2, unlimited": (VERSION_2, "0::/\n", {f"{V2}/cpu.max": "max 100000\n"}, None),
    "version 2, nested": (
        VERSION_2,
        "0::/slice/own\n",
        {f"{V2}/slice/own/cpu.max": "700000 100000\n", f"{V2}/slice/cpu.max": "500000 100000\n"},
        5,
    ),
    "version 1": (
        VERSION_1,
        OWN_1.format("/"),
        {f"{CPU}/cpu.cfs_quota_us": "250000\n", f"{CPU}/cpu.cfs_period_us": "100000\n"},
        3,
    ),
    "version 1, unlimited": (
        VERSION_1,
        OWN_1.format("/"),
        {f"{CPU}/cpu.cfs_quota_us": "-1\n", f"{CPU}/cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "version 1, in a group": (
        VERSION_1,
        OWN_1.format("/own"),
        {f"{CPU}/own/cpu.cfs_quota_us": "400000\n", f"{CPU}/own/cpu.cfs_period_us": "100000\n"},
        4,
    ),
    "none": ("", "", {}, None),
}


@pytest.mark.parametrize(
    ("mounted", "own", "files", "expected"), PROCESSORS.values(), ids=PROCESSORS
)
def test_processors_are_rounded_up(tmp_path, mounted, own, files, expected):
    files = files | {"/proc/self/mountinfo": mounted, "/proc/self/cgroup": own}
    assert _system.processors(write_tree(tmp_path, files)) == expected


def test_no_files_at_all(tmp_path):
    assert _system.processors(tmp_path) is None
    assert _system.memory_limit(tmp_path) is None
