"""Run cybn on arrays beside pages that must not be touched: `python guards.py`, Linux.

A read or write outside of an array, even of one value, ends the process by a signal. A script,
because that would end the tests, too.
"""

from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from unittest.mock import patch

import numpy as np
import pytest
from cases import DTYPES, MEMORY, SHAPES, make_case, run_cybn, tracked
from halves import HALVES
from memory import guarded
from norms import SHAPES as NORM_SHAPES
from norms import make_norm_case
from norms import run_cybn as run_norm
from numpy.testing import assert_array_equal
from ways import force_schedule

import cybn
import cybn._functional

FUSED_SHAPES = [SHAPES[name] for name in ("N, C", "NCHW", "RGB NHWC", "rows less one", "NHWC")]
WAYS = [(*memory, *rest) for memory, *rest in product(MEMORY, [0, 1 << 40], [1, 3])]


def run_guarded(case, before):
    """forward and backward where every array that goes to the kernels lies beside such a page."""
    x, dy, gamma, beta, running_mean, running_var = (
        guarded(array, before)
        for array in (case.x, case.dy, case.gamma, case.beta, case.running_mean, case.running_var)
    )
    out, dx = (guarded(np.full_like(x, np.nan), before) for _ in range(2))
    _, cache = cybn.forward(
        x, gamma, beta, running_mean=running_mean, running_var=running_var, **case.options, out=out
    )
    gradients = cybn.backward(dy, cache, out=dx)
    return out, *gradients, running_mean, running_var


def run_guarded_norm(case, before):
    """As `run_guarded`; y and dx are made by cybn."""
    arrays = {name: getattr(case, name) for name in ("x", "dy", "gamma", "beta")}
    return run_norm(
        replace(
            case,
            **{
                name: array if array is None else guarded(array, before)
                for name, array in arrays.items()
            },
        )
    )


def run_guarded_fused(fused, before):
    """As `run_guarded`, with an activation and a residual, or None, of any dtype it may have."""
    case, activation, residual = fused
    running = [array.copy() for array in (case.running_mean, case.running_var)]
    x, dy, out, dx = (
        None if array is None else guarded(array, before)
        for array in (case.x, case.dy, np.zeros_like(case.x), np.zeros_like(case.x))
    )
    options, receiver = {"activation": activation, "out": out}, {}
    if residual is not None:
        options["residual"] = guarded(residual, before)
        receiver["residual_out"] = guarded(np.zeros_like(residual), before)
    y, cache = cybn.batch_norm(
        x, case.gamma, case.beta, **options, **tracked(running), **case.options
    )
    gradients = cybn.backward(dy, cache, out=dx, **receiver)
    arrays = y, *gradients, gradients.dresidual
    return [None if array is None else array.astype(np.float64) for array in arrays]


def fused_cases(rng):
    """One of each kind that has a loop of its own: what y decides, what x does, no activation."""
    for (shape, axis), training in product(FUSED_SHAPES, (True, False)):
        case = make_case(rng, shape, axis, np.float64, training=training)
        added = rng.normal(size=shape)
        for dtype in (*HALVES.values(), *DTYPES):
            typed = replace(case, x=case.x.astype(dtype), dy=case.dy.astype(dtype))
            kinds = {np.dtype(dtype), np.dtype(np.float32 if dtype in HALVES.values() else dtype)}
            residuals = [None, *(added.astype(kind) for kind in kinds)]
            for activation, residual in product((None, "relu6", "silu"), residuals):
                yield typed, activation, residual


@contextmanager
def guarded_insides(before):
    """What cybn makes for the kernels lies beside such a page, too."""
    empty, as_mask = np.empty, cybn._functional.as_mask

    def guarded_mask(*arguments):
        mask, counts, *others = as_mask(*arguments)
        return guarded(mask, before), guarded(counts, before), *others

    def guarded_empty(*arguments):
        return guarded(empty(*arguments), before)

    with (
        patch("cybn._normalize.empty", guarded_empty),
        patch("cybn._backward.empty", guarded_empty),
        patch("cybn._functional.as_mask", guarded_mask),
    ):
        yield


def assert_same_in_every_way(run, case, expected):
    for way, before in product(WAYS, (True, False)):
        with pytest.MonkeyPatch.context() as monkeypatch, guarded_insides(before):
            force_schedule(monkeypatch, lambda nbytes, way=way: way)
            actual = run(case, before)
        for one, other in zip(actual, expected, strict=True):
            assert_array_equal(one, other)


def main():
    rng = np.random.default_rng(0)
    for (shape, axis), dtype, training in product(SHAPES.values(), DTYPES, (True, False)):
        case = make_case(rng, shape, axis, dtype, training=training)
        assert_same_in_every_way(run_guarded, case, run_cybn(case))
    for name, dtype in product(NORM_SHAPES, DTYPES):
        case = make_norm_case(rng, name, dtype)
        assert_same_in_every_way(run_guarded_norm, case, run_norm(case))
    for fused in fused_cases(rng):
        assert_same_in_every_way(run_guarded_fused, fused, run_guarded_fused(fused, True))


if __name__ == "__main__":
    main()
