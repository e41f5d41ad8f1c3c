"""The limit: a copy with the streaming stores of `pyx/`, compiled here for this processor."""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.compare.systems import copy_plain

_HEADERS = Path(__file__).parents[3] / "pyx"
# Loads and streaming stores in groups of four lines, the source prefetched: in turns, with a
# source that is not aligned, they run at half the speed.
_SOURCE = """
#include "cache.h"
#include "convert.h"
#define GROUP (4 * CACHE_LINE)
#define AHEAD 2048
void copy_bytes(char *to, const char *from, size_t bytes) {
    size_t done = 0;
    for (; done + GROUP <= bytes; done += GROUP) {
        double lines[GROUP / sizeof(double)];
        prefetch(from + done + AHEAD, GROUP);
        memcpy(lines, from + done, GROUP);
        narrow(lines, (double *)(to + done), GROUP / sizeof(double), 1);
    }
    stream_fence();
    memcpy(to + done, from + done, bytes - done);
}
"""


def _compiled():
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise ImportError("it needs a C compiler")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "copy.so")
        flags = ["-O3", "-march=native", "-shared", "-fPIC", f"-I{_HEADERS}"]
        command = [*compiler, *flags, "-x", "c", "-", "-o", str(library)]
        subprocess.run(command, input=_SOURCE, text=True, check=True)
        copy_bytes = ctypes.CDLL(str(library)).copy_bytes
    copy_bytes.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return copy_bytes


class System(copy_plain.System):
    copy_bytes = staticmethod(_compiled())
