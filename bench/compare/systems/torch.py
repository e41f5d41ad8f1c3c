"""PyTorch eager, by the operators that `torch.nn.functional.batch_norm` ends in, and its norms."""

from functools import partial

import torch

from bench.cells import EPS, GROUPS, MOMENTUM
from bench.compare.systems import Task


class System:
    def __init__(self, threads):
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)

    def configuration(self):
        return {"version": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}

    def training(self, problem, reuse):
        return _forward(problem, reuse, training=True)

    def inference(self, problem, reuse):
        return _forward(problem, reuse, training=False)

    def backward(self, problem, reuse):
        if reuse:  # the overload with out= computes a fresh result, then copies it
            return None
        cell = problem.cell
        x, dy = _tensor(cell, problem.x), _tensor(cell, problem.dy)
        gamma, beta, *running = _parameters(problem)
        _, mean, invstd = torch.native_batch_norm(x, gamma, beta, *running, True, MOMENTUM, EPS)
        saved = (gamma, *running, mean, invstd, True, EPS, [True, True, True])
        run = partial(torch.ops.aten.native_batch_norm_backward, dy, x, *saved)

        def read(result):
            dx, dgamma, dbeta = result
            return _array(cell, dx), dgamma.numpy(), dbeta.numpy()

        return Task(run, read)

    def norm(self, problem, reuse):
        if reuse:
            return None
        return Task(_norm(problem, *_norm_arguments(problem)), lambda y: (y.numpy(),))

    def norm_backward(self, problem, reuse):
        if reuse:
            return None
        arguments = [tensor.requires_grad_() for tensor in _norm_arguments(problem)]
        with torch.enable_grad():
            y = _norm(problem, *arguments)()
        dy = torch.from_numpy(problem.dy)
        run = partial(torch.autograd.grad, y, arguments, dy, retain_graph=True)
        return Task(run, lambda gradients: tuple(gradient.numpy() for gradient in gradients))


def _norm(problem, x, gamma, beta):
    cell, functional = problem.cell, torch.nn.functional
    parameters = {"weight": gamma, "bias": beta, "eps": EPS}
    if cell.norm == "layer":
        return partial(functional.layer_norm, x, (cell.channels,), **parameters)
    if cell.norm == "group":
        return partial(functional.group_norm, x, GROUPS, **parameters)
    return partial(functional.instance_norm, x, **parameters)


def _norm_arguments(problem):
    return [torch.from_numpy(array) for array in (problem.x, problem.gamma, problem.beta)]


def _forward(problem, reuse, training):
    cell = problem.cell
    arguments = (_tensor(cell, problem.x), *_parameters(problem), training, MOMENTUM, EPS)
    options = {}
    if reuse:
        saved = cell.channels if training else 0
        statistics = (torch.empty(saved, dtype=arguments[0].dtype) for _ in range(2))
        options["out"] = (_tensor(cell, problem.buffer()), *statistics)
    run = partial(torch.native_batch_norm, *arguments, **options)
    return Task(run, lambda result: (_array(cell, result[0]),))


def _parameters(problem):
    parameters = (problem.gamma, problem.beta, *problem.running())
    return tuple(torch.from_numpy(parameter) for parameter in parameters)


def _tensor(cell, array):
    """Tensor on the array's memory: channels last where the cell is."""
    return torch.from_numpy(cell.channels_second(array))


def _array(cell, tensor):
    return cell.from_channels_second(tensor.numpy())
