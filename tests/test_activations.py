"""Whatever comes as activation: what it names, or an error that says so."""

import enum
from collections import namedtuple

import numpy as np
import pytest
from checks import refused

import cybn


class Name(enum.StrEnum):
    RELU = "relu"
    LEAKY = "leaky_relu"


Pair = namedtuple("Pair", ["name", "slope"])


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (np.str_("relu"), "relu"),
        (Name.RELU, "relu"),
        ((Name.LEAKY, 0.5), ("leaky_relu", 0.5)),
        ((np.str_("leaky_relu"), np.float32(0.5)), ("leaky_relu", 0.5)),
        (Pair("leaky_relu", 1), ("leaky_relu", 1.0)),
        (("leaky_relu", 5e-324), ("leaky_relu", 5e-324)),
        (("leaky_relu", 1e308), ("leaky_relu", 1e308)),
    ],
    ids=str,
)
def test_names_of_activations(given, plain):
    x, residual, dy = np.random.default_rng(5).normal(size=(3, 4, 3, 5))
    results = []
    for activation in given, plain:
        y, cache = cybn.batch_norm(x, activation=activation, residual=residual)
        gradients = cybn.backward(dy, cache)
        results.append([each.tobytes() for each in (y, gradients.dx, gradients.dresidual)])
    assert results[0] == results[1]


def test_a_slope_of_negative_zero():
    """It is the same as 0 where settings are looked up, whichever came first."""
    x, _, _ = np.random.default_rng(5).normal(size=(3, 4, 3, 5))
    y, _ = cybn.batch_norm(x, activation=("leaky_relu", -0.0), eps=1.25e-5)
    assert (y == 0).any()
    assert np.signbit(y[y == 0]).all()  # v * 0.0


class Unhashable(str):
    __hash__ = None


@pytest.mark.parametrize(
    ("activation", "error"),
    [
        *((each, TypeError) for each in (0, True, 1.0, b"relu", ["relu"], {"relu"}, {}, len)),
        *(
            (each, ValueError)
            for each in ("", "ReLU", "relu ", "RELU6", "leaky_relu", Unhashable())
        ),
        *((each, ValueError) for each in ((), ("relu",), ("leaky_relu",), ("relu", None))),
        *((("leaky_relu", slope), ValueError) for slope in (-1e-300, np.nan, np.inf, 10**400)),
        *((("leaky_relu", slope), TypeError) for slope in (None, "1", 1j, [1], np.ones(1))),
        (("leaky_relu", 0.1, 0.1), ValueError),
        ((0.1, "leaky_relu"), ValueError),
        (np.array("relu"), TypeError),
    ],
    ids=repr,
)
def test_wrong_activation(activation, error):
    x, residual, _ = np.random.default_rng(5).normal(size=(3, 4, 3, 5))
    running = np.zeros(3), np.ones(3)
    with refused(error, r"\bactivation\b", x, residual, *running):
        cybn.batch_norm(
            x, residual=residual, activation=activation, running_mean=running[0],
            running_var=running[1],
        )  # fmt: skip
