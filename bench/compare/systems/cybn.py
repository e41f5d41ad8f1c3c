"""cybn itself; eps and momentum are its defaults."""

from functools import partial

import cybn
from bench.cells import GROUPS
from bench.compare.systems import Task

_NORMS = {
    "layer": cybn.layer_norm,
    "group": lambda x, *rest, **options: cybn.group_norm(x, GROUPS, *rest, **options),
    "instance": cybn.instance_norm,
}


class System:
    def __init__(self, threads):
        cybn.set_num_threads(threads)

    def configuration(self):
        return cybn.show_config(mode="dict")

    def training(self, problem, reuse):
        return _forward(problem, reuse, training=True)

    def inference(self, problem, reuse):
        return _forward(problem, reuse, training=False)

    def backward(self, problem, reuse):
        p = problem
        _, cache = cybn.forward(p.x, p.gamma, p.beta, axis=p.cell.axis)
        options = {"out": p.buffer()} if reuse else {}
        return Task(partial(cybn.backward, p.dy, cache, **options), tuple)

    def norm(self, problem, reuse):
        options = {"out": problem.buffer()} if reuse else {}
        return Task(_norm(problem, **options), lambda result: (result[0],))

    def norm_backward(self, problem, reuse):
        _, cache = _norm(problem)()
        options = {"out": problem.buffer()} if reuse else {}
        return Task(partial(cybn.backward, problem.dy, cache, **options), tuple)


def _norm(p, **options):
    return partial(_NORMS[p.cell.norm], p.x, p.gamma, p.beta, axis=p.cell.axis, **options)


def _forward(p, reuse, training):
    running_mean, running_var = p.running()
    options = {"running_mean": running_mean, "running_var": running_var}
    options |= {"training": training, "axis": p.cell.axis}
    if reuse:
        options["out"] = p.buffer()
    run = partial(cybn.forward, p.x, p.gamma, p.beta, **options)
    return Task(run, lambda result: (result[0],))
