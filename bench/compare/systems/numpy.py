"""Plain NumPy."""

from functools import partial

import numpy as np

from bench import baseline
from bench.compare.systems import Task


class System:
    def __init__(self, threads):
        """NumPy's elementwise work and sums have one thread, whatever is asked."""

    def configuration(self):
        return {"version": np.__version__}

    def training(self, problem, reuse):
        p = problem
        if reuse:
            return None
        run = partial(baseline.training, p.x, p.gamma, p.beta, p.cell.axis)
        return Task(run, lambda y: (y,))

    def inference(self, problem, reuse):
        p = problem
        if reuse:
            return None
        parameters = p.gamma, p.beta, p.running_mean, p.running_var
        run = partial(baseline.inference, p.x, *parameters, p.cell.axis)
        return Task(run, lambda y: (y,))

    def backward(self, problem, reuse):
        p = problem
        if reuse:
            return None
        saved = baseline.statistics(p.x, p.cell.axis)
        run = partial(baseline.backward, p.dy, p.x, p.gamma, *saved, p.cell.axis)
        return Task(run, tuple)

    def norm(self, problem, reuse):
        p = problem
        if reuse:
            return None
        return Task(partial(baseline.norm, p.x, p.gamma, p.beta, p.cell), lambda y: (y,))

    def norm_backward(self, problem, reuse):
        p = problem
        if reuse:
            return None
        saved = baseline.norm_statistics(p.x, p.cell)
        return Task(partial(baseline.norm_backward, p.dy, p.x, p.gamma, *saved, p.cell), tuple)
