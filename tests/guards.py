"""Run cybn on arrays beside pages that must not be touched: `python guards.py`, Linux.

A read or write outside of an array, even of one value, ends the process by a signal. A script,
because that would end the tests, too.
"""

from itertools import product

import numpy as np
from cases import DTYPES, SHAPES, make_case, run_cybn
from memory import guarded
from numpy.testing import assert_array_equal

import cybn
import cybn.functional

WAYS = list(product([False, True], [0, 1 << 40], [1, 3]))  # stream, cache size, threads


def run_guarded(case, before):
    """forward and backward where every array that goes to the kernels lies beside such a page."""
    x, dy, gamma, beta, running_mean, running_var = (
        guarded(array, before)
        for array in (case.x, case.dy, case.gamma, case.beta, case.running_mean, case.running_var)
    )
    out, dx = (guarded(np.full_like(x, np.nan), before) for _ in range(2))
    _, cache = cybn.forward(x, gamma, beta, running_mean, running_var, **case.options, out=out)
    gradients = cybn.backward(dy, cache, out=dx)
    return out, *gradients, running_mean, running_var


def main():
    new = np.empty
    rng = np.random.default_rng(0)
    for (shape, axis), dtype, training in product(SHAPES.values(), DTYPES, (True, False)):
        case = make_case(rng, shape, axis, dtype, training=training)
        expected = run_cybn(case)
        for way, before in product(WAYS, (True, False)):
            cybn.functional.schedule = lambda nbytes, way=way: way
            np.empty = lambda *arguments, before=before: guarded(new(*arguments), before)
            actual = run_guarded(case, before)
            np.empty = new
            for one, other in zip(actual, expected, strict=True):
                assert_array_equal(one, other)


if __name__ == "__main__":
    main()
