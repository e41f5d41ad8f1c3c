"""oneDNN itself, by its C API: plain layouts, buffers made beforehand.

Constants and signatures are those of oneDNN 3.2 (`dnnl.h`, `dnnl_types.h`), which the
package `onednn-cpu-gomp` 2023.2 holds.
"""

import ctypes
from ctypes import byref, c_float, c_int, c_int64, c_uint, c_void_p
from functools import partial
from importlib import metadata
from weakref import finalize

import numpy as np

from bench.cells import EPS
from bench.compare.systems import Task

_PACKAGE = "onednn-cpu-gomp"
_CPU, _STREAM_DEFAULT, _F32 = 1, 1, 3
_FORWARD_TRAINING, _FORWARD_INFERENCE, _BACKWARD = 64, 96, 128
_USE_GLOBAL_STATS, _USE_SCALE, _USE_SHIFT = 1, 2, 4
_ARGUMENTS = {
    "src": 1,
    "dst": 17,
    "mean": 49,
    "variance": 50,
    "scale": 51,
    "shift": 52,
    "diff_src": 129,
    "diff_dst": 145,
    "diff_scale": 255,
    "diff_shift": 256,
}


class _Argument(ctypes.Structure):
    _fields_ = (("index", c_int), ("memory", c_void_p))


def _load():
    files = metadata.files(_PACKAGE)  # PackageNotFoundError is an ImportError
    library = next(file for file in files if file.name == "libdnnl.so.3")
    return ctypes.CDLL(str(library.locate()))


_dnnl = _load()


def _call(function, *arguments):
    status = getattr(_dnnl, function)(*arguments)
    if status:
        raise RuntimeError(f"{function} answered with status {status}")


def _create(kind, *arguments):
    """Handle of a new object. It lives as long as the process, if nobody destroys it."""
    handle = c_void_p()
    _call(f"dnnl_{kind}_create", byref(handle), *arguments)
    return handle


def _destroy(kind, *handles):
    for handle in handles:
        _call(f"dnnl_{kind}_destroy", handle)


class System:
    def __init__(self, threads):
        """The thread count is OpenMP's, from the environment."""
        self._engine = _create("engine", c_int(_CPU), ctypes.c_size_t(0))
        self._stream = _create("stream", self._engine, c_uint(_STREAM_DEFAULT))
        self._primitives = {}

    def configuration(self):
        return {"version": metadata.version(_PACKAGE)}

    def training(self, problem, reuse):
        if not _supported(problem, reuse):
            return None
        primitive = self._primitive(problem, self._training)
        return self._forward_task(problem, primitive, *_statistics(problem))

    def inference(self, problem, reuse):
        if not _supported(problem, reuse):
            return None
        primitive = self._primitive(problem, self._inference)
        return self._forward_task(problem, primitive, *problem.running())

    def backward(self, problem, reuse):
        if not _supported(problem, reuse):
            return None
        p = problem
        mean, variance = _statistics(p)
        self._forward_task(p, self._primitive(p, self._training), mean, variance)
        results = p.buffer(), *_statistics(p)
        outputs = dict(zip(("diff_src", "diff_scale", "diff_shift"), results, strict=True))
        inputs = {"src": p.x, "diff_dst": p.dy, "mean": mean, "variance": variance}
        primitive = self._primitive(p, self._backward)
        run = self._execution(p, primitive, scale=p.gamma, **inputs, **outputs)
        return Task(run, lambda _: results)

    def _primitive(self, problem, describe):
        """The cell's primitive of one kind; all its sets have it in common."""
        key = problem.cell, describe.__name__
        if key not in self._primitives:
            self._primitives[key] = _create("primitive", describe(problem))
        return self._primitives[key]

    def _training(self, problem):
        return self._forward(problem, _FORWARD_TRAINING, _USE_SCALE | _USE_SHIFT)

    def _inference(self, problem):
        flags = _USE_GLOBAL_STATS | _USE_SCALE | _USE_SHIFT
        return self._forward(problem, _FORWARD_INFERENCE, flags)

    def _backward(self, problem):
        data = _described(problem)
        return _create(
            "batch_normalization_backward_primitive_desc",
            self._engine,
            c_int(_BACKWARD),
            *(data, data, data),
            c_float(EPS),
            c_uint(_USE_SCALE | _USE_SHIFT),
            self._training(problem),
            None,
        )

    def _forward(self, problem, kind, flags):
        data = _described(problem)
        return _create(
            "batch_normalization_forward_primitive_desc",
            self._engine,
            c_int(kind),
            *(data, data),
            c_float(EPS),
            c_uint(flags),
            None,
        )

    def _forward_task(self, problem, primitive, mean, variance):
        p = problem
        y = p.buffer()
        parameters = {"scale": p.gamma, "shift": p.beta, "mean": mean, "variance": variance}
        run = self._execution(p, primitive, src=p.x, dst=y, **parameters)
        return Task(run, lambda _: (y,))

    def _execution(self, problem, primitive, **arrays):
        """Run the primitive on the arrays once, and return a call that runs it again."""
        arguments = (_Argument * len(arrays))()
        memories = [self._memory(problem, array) for array in arrays.values()]
        for argument, name, memory in zip(arguments, arrays, memories, strict=True):
            argument.index = _ARGUMENTS[name]
            argument.memory = memory.value
        arguments.arrays = arrays  # keeps the memory behind the handles alive
        finalize(arguments, _destroy, "memory", *memories)
        everything = (primitive, self._stream, c_int(len(arguments)), arguments)
        _call("dnnl_primitive_execute", *everything)
        return partial(_dnnl.dnnl_primitive_execute, *everything)

    def _memory(self, problem, array):
        described = _described(problem) if array.ndim > 1 else _memory_descriptor(array)
        memory = _create("memory", described, self._engine, c_void_p(array.ctypes.data))
        _destroy("memory_desc", described)
        return memory


def _supported(problem, reuse):
    return reuse and problem.x.dtype == np.float32


def _statistics(problem):
    return tuple(np.empty(problem.cell.channels, np.float32) for _ in range(2))


def _described(problem):
    """Memory descriptor of x: logical dimensions (N, C, ...), strides of the layout."""
    return _memory_descriptor(problem.cell.channels_second(problem.x))


def _memory_descriptor(array):
    dimensions = c_int64 * array.ndim
    strides = (stride // array.itemsize for stride in array.strides)
    descriptor = c_void_p()
    _call(
        "dnnl_memory_desc_create_with_strides",
        byref(descriptor),
        c_int(array.ndim),
        dimensions(*array.shape),
        c_int(_F32),
        dimensions(*strides),
    )
    return descriptor
