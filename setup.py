"""Build the table of CPU levels x extension modules. Everything else is in pyproject.toml."""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

# Bounds checks and asserts on, optimization off: CYBN_DEBUG=1 pip install .
DEBUG = os.environ.get("CYBN_DEBUG", "0") != "0"

if sysconfig.get_platform().startswith("win"):
    sys.exit(
        "cybn: expected gcc or clang on a POSIX system, got Windows, which is not supported. "
        "In the Windows Subsystem for Linux it can be built and used."
    )

# level -> the flags of its kernels. Contraction would give other bits at levels that have FMA.
LEVELS = (
    {
        "v2": ["-march=x86-64-v2"],
        "v3": ["-march=x86-64-v3"],
        "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    }
    if platform.machine().lower() in ("x86_64", "amd64")
    else {"base": []}
)
# CYBN_BUILD_LEVELS="v2 v3": those alone, for a machine whose processor has no higher one.
if only := os.environ.get("CYBN_BUILD_LEVELS", "").split():
    LEVELS = {level: LEVELS[level] for level in only}
FLAGS = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-O1", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"]
# Where the compiler knows it (GCC): loops over 8 or 16 lanes are not taken apart before they could
# become vectors.
OPTIONAL_FLAG = "--param=max-completely-peel-times=7"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
}


def compiles_and_links(program: str, flags: list[str]) -> bool:
    """Whether the compiler accepts a program with these flags."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(program)
        command = [*compiler, str(source), *flags, "-o", str(Path(folder, "probe"))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def openmp_flags() -> tuple[list[str], list[str]]:
    """Flags to compile and to link with OpenMP; empty, with a loud warning, where it is missing."""
    program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
    for compile_flags, link_flags in (
        (["-fopenmp"], ["-fopenmp"]),
        (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),  # Apple's clang, with Homebrew's libomp
    ):
        if compiles_and_links(program, [*compile_flags, *link_flags]):
            return compile_flags, link_flags
    banner = "*" * 78
    print(
        f"{banner}\ncybn: WARNING: no OpenMP found. The kernels will run on ONE thread.\n{banner}",
        file=sys.stderr,
    )
    return [], []


def extensions() -> list[Extension]:
    """`runtime` and `memory` for the plain baseline, and `kernels` once for each level."""
    compile_flags, link_flags = openmp_flags()
    if compiles_and_links("int main(void) { return 0; }\n", [OPTIONAL_FLAG]):
        compile_flags = [*compile_flags, OPTIONAL_FLAG]
    table = {f"cybn._native_{name}": (f"pyx/{name}.pyx", []) for name in ("runtime", "memory")}
    table |= {f"cybn._kernels_{level}": ("pyx/kernels.pyx", LEVELS[level]) for level in LEVELS}
    modules = []
    for name, (source, flags) in table.items():
        extension = Extension(
            name,
            [source],
            include_dirs=["pyx", np.get_include()],
            define_macros=[
                # Leaves are written once and specialized where they are called, by inlining.
                ("CYTHON_INLINE", "inline __attribute__((always_inline))"),
                # Of NumPy's structures nothing that has been deprecated.
                ("NPY_NO_DEPRECATED_API", "NPY_1_23_API_VERSION"),
            ],
            depends=["setup.py", *(str(p) for p in sorted(Path("pyx").glob("*.[ph]*")))],
            extra_compile_args=FLAGS + flags + compile_flags,
            extra_link_args=link_flags,
        )
        # A build folder each: they are compiled from one source, under different names.
        modules += cythonize(
            [extension],
            include_path=["pyx"],
            build_dir=f"build/cython/{name}",
            compiler_directives=DIRECTIVES,
        )
    return modules


setup(
    ext_modules=extensions(),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},  # a module for each processor
)
