"""ONNX's own conformance cases of the BatchNormalization operator.

ONNX's momentum weighs the old value, and its running variance is the biased one.
"""

import warnings

import pytest
from numpy.testing import assert_allclose

import cybn

onnx = pytest.importorskip("onnx")
loader = pytest.importorskip("onnx.backend.test.loader")

with warnings.catch_warnings(action="ignore"):  # other operators' cases overflow on purpose
    CASES = {
        case.name: case
        for case in loader.load_model_tests(kind="node")
        if case.name.startswith("test_batchnorm_") and not case.name.endswith("_expanded")
    }


def read_arrays(case):
    """The operator's attributes, inputs and outputs."""
    (node,) = case.model.graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    inputs, outputs = case.data_sets[0]
    return attributes, inputs, outputs


def test_the_cases_are_there():
    kinds = {f"test_batchnorm_{kind}" for kind in ("example", "epsilon")}
    assert kinds | {f"{kind}_training_mode" for kind in kinds} <= set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    attributes, (x, scale, bias, input_mean, input_var), outputs = read_arrays(CASES[name])
    eps = attributes.get("epsilon", 1e-5)
    keep = attributes.get("momentum", 0.9)
    training = bool(attributes.get("training_mode", 0))
    running_mean, running_var = input_mean.copy(), input_var.copy()

    y, _ = cybn.forward(
        x,
        scale,
        bias,
        running_mean,
        running_var,
        training=training,
        momentum=1 - keep,
        eps=eps,
    )

    results = [y]
    if training:
        n = x.size // x.shape[1]
        batch_part = running_var - keep * input_var
        results += [running_mean, keep * input_var + batch_part * (n - 1) / n]
    for actual, expected in zip(results, outputs, strict=True):
        assert actual.dtype == expected.dtype
        # The expected values were computed in float32.
        assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
