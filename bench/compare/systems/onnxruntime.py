"""ONNX Runtime: a model of one BatchNormalization node. Inference, channels second."""

from functools import partial
from weakref import WeakValueDictionary

import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.cells import EPS
from bench.compare.systems import Task

_TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


class System:
    def __init__(self, threads):
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._sessions = WeakValueDictionary()

    def configuration(self):
        return {"version": onnxruntime.__version__}

    def training(self, problem, reuse):
        return None

    def backward(self, problem, reuse):
        return None

    def inference(self, problem, reuse):
        if problem.cell.layout == "NHWC":
            return None
        session = self._session(problem)
        if not reuse:
            return Task(partial(session.run, ["y"], {"x": problem.x}), tuple)
        y = problem.buffer()
        binding = session.io_binding()
        binding.bind_cpu_input("x", problem.x)
        binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)
        return Task(partial(session.run_with_iobinding, binding), lambda _: (y,))

    def _session(self, problem):
        """The cell's session; all its sets, whose parameters are equal, have one in common."""
        key = problem.cell, problem.x.dtype.name
        session = self._sessions.get(key)
        if session is None:
            session = onnxruntime.InferenceSession(
                _model(problem), self._options, providers=["CPUExecutionProvider"]
            )
            self._sessions[key] = session
        return session


def _model(problem):
    constants = {
        "scale": problem.gamma,
        "bias": problem.beta,
        "mean": problem.running_mean,
        "var": problem.running_var,
    }
    node = helper.make_node("BatchNormalization", ["x", *constants], ["y"], epsilon=EPS)
    kind = _TYPES[problem.x.dtype.name]
    graph = helper.make_graph(
        [node],
        "batch_norm",
        [helper.make_tensor_value_info("x", kind, problem.x.shape)],
        [helper.make_tensor_value_info("y", kind, problem.x.shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 15)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
