"""backward against central differences of forward, in float64."""

import numpy as np
import pytest
from cases import make_case, tracked
from checks import numerical_gradient
from norms import build_norm_case

import cybn

# Central differences of step h are off by h**2 times the third derivative, and by the rounding of
# the loss (1e-16 * 10) over h: with h = 1e-4 some 1e-8 and 1e-11. The gradients are of order 1.
STEP = 1e-4
TOLERANCE = 1e-6

SHAPES = [((6, 3), 1), ((3, 2, 4), 1), ((2, 3, 2, 2), -1), ((4, 5), 0), ((2, 2, 3, 2, 2), 2)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_all_gradients(rng, shape, axis, training):
    case = make_case(rng, shape, axis, np.float64, training=training, mean=0.5, eps=0.1)

    def forward():
        running = case.running_mean.copy(), case.running_var.copy()
        return cybn.forward(case.x, case.gamma, case.beta, **tracked(running), **case.options)

    def loss():
        return np.sum(forward()[0] * case.dy)

    gradients = cybn.backward(case.dy, forward()[1])

    for gradient, array in zip(gradients, (case.x, case.gamma, case.beta), strict=True):
        np.testing.assert_allclose(gradient, numerical_gradient(loss, array, STEP), atol=TOLERANCE)


NORMS = [
    ("conditional batch", (3, 2, 4), {}),
    ("layer", (3, 5), {}),
    ("layer", (2, 3, 4), {"axis": (1, 2)}),
    ("RMS", (3, 5), {}),
    ("instance", (2, 3, 4), {}),
    ("instance", (2, 4, 3), {"axis": -1}),
    ("adaptive instance", (2, 3, 4), {}),
    ("group", (2, 6, 3), {"num_groups": 2}),
    ("group", (2, 3, 6), {"num_groups": 2, "axis": -1}),
    ("weight", (3, 2, 2), {}),
    ("batch", (4, 3, 2), {"axis": (1, 2)}),
    ("batch", (3, 2, 4), {}, (3, 1, 4)),
    ("batch", (4, 3, 2), {"axis": (1, 2)}, (4, 3, 1)),
]


@pytest.mark.parametrize("arguments", NORMS)
def test_all_gradients_of_norms(rng, arguments):
    """What a mask leaves out has none: it is NaN here."""
    case = build_norm_case(rng, *arguments, dtype=np.float64, mean=0.5, eps=0.1)

    def forward():
        return case.norm.function(case.x, **case.arguments)

    def loss():
        return np.nansum(forward()[0] * case.dy)

    gradients = cybn.backward(case.dy, forward()[1])

    for gradient, array in zip(gradients, (case.x, case.gamma, case.beta), strict=True):
        if array is not None:
            np.testing.assert_allclose(
                gradient, numerical_gradient(loss, array, STEP), atol=TOLERANCE
            )
