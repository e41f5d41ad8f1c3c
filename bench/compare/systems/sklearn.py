"""scikit-learn's StandardScaler: the forward pass on (N, C), without gamma and beta."""

from functools import partial

import numpy as np
import sklearn
from sklearn.preprocessing import StandardScaler

from bench.cells import EPS
from bench.compare.systems import Task


class System:
    def __init__(self, threads):
        """The scaler works through NumPy, with one thread, whatever is asked."""

    def configuration(self):
        return {"version": sklearn.__version__}

    def training(self, problem, reuse):
        if reuse or problem.cell.layout != "NC":
            return None
        return Task(partial(StandardScaler().fit_transform, problem.x), _affine(problem))

    def inference(self, problem, reuse):
        if reuse or problem.cell.layout != "NC":
            return None
        scaler = StandardScaler().fit(problem.x[:2])
        scaler.mean_ = problem.running_mean
        scaler.scale_ = np.sqrt(problem.running_var + problem.x.dtype.type(EPS))
        return Task(partial(scaler.transform, problem.x), _affine(problem))

    def backward(self, problem, reuse):
        return None


def _affine(problem):
    """Reader that applies gamma and beta, untimed, so that the result can be compared."""
    return lambda y: (y * problem.gamma + problem.beta,)
