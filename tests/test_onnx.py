"""ONNX's own conformance cases of the normalization operators."""

import warnings

import numpy as np
import pytest
from cases import tracked
from numpy.testing import assert_allclose

import cybn

onnx = pytest.importorskip("onnx")
loader = pytest.importorskip("onnx.backend.test.loader")

# The names of the cases of each operator begin alike.
PREFIXES = {
    "BatchNormalization": "test_batchnorm_",
    "LayerNormalization": "test_layer_normalization_",
    "RMSNormalization": "test_rms_normalization_",
    "InstanceNormalization": "test_instancenorm_",
    "GroupNormalization": "test_group_normalization_",
    "MeanVarianceNormalization": "test_mvn",
}
with warnings.catch_warnings(action="ignore"):  # other operators' cases overflow on purpose
    CASES = {
        case.name: case
        for case in loader.load_model_tests(kind="node")
        if case.name.startswith(tuple(PREFIXES.values())) and "_expanded" not in case.name
    }


def read(case):
    """The operator, its attributes, inputs and outputs."""
    (node,) = case.model.graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return node.op_type, attributes, *case.data_sets[0]


def batch_normalization(attributes, x, scale, bias, input_mean, input_var):
    """ONNX's momentum weighs the old value, and its running variance is the biased one."""
    keep = attributes.get("momentum", 0.9)
    training = bool(attributes.get("training_mode", 0))
    running_mean, running_var = input_mean.copy(), input_var.copy()
    running = running_mean, running_var
    options = {"training": training, "momentum": 1 - keep, "eps": epsilon(attributes)}
    y, _ = cybn.forward(x, scale, bias, **tracked(running), **options)
    if not training:
        return [y]
    n = x.size // x.shape[1]
    batch_part = running_var - keep * input_var
    return [y, running_mean, keep * input_var + batch_part * (n - 1) / n]


def layer_normalization(attributes, x, scale, bias):
    axes = normalized_axes(attributes, x)
    y, cache = cybn.layer_norm(x, scale, bias, axis=axes, eps=epsilon(attributes))
    shape = (*x.shape[: axes[0]], *[1] * len(axes))
    statistics = [np.reshape(values, shape) for values in (cache.mean, cache.invstd)]
    return [y, *(values.astype(np.float32) for values in statistics)]


def rms_normalization(attributes, x, scale):
    axes = normalized_axes(attributes, x)
    return [cybn.rms_norm(x, scale, axis=axes, eps=epsilon(attributes))[0]]


def instance_normalization(attributes, x, scale, bias):
    return [cybn.instance_norm(x, scale, bias, eps=epsilon(attributes))[0]]


def group_normalization(attributes, x, scale, bias):
    groups = attributes["num_groups"]
    return [cybn.group_norm(x, groups, scale, bias, eps=epsilon(attributes))[0]]


def mean_variance_normalization(attributes, x):
    """Over all axes but the channels, by default. It adds 1e-9 to the standard deviation."""
    assert not attributes
    return [cybn.forward(x, eps=1e-18)[0]]


def epsilon(attributes):
    return attributes.get("epsilon", 1e-5)


def normalized_axes(attributes, x):
    """ONNX names the first one."""
    return tuple(range(attributes.get("axis", -1) % x.ndim, x.ndim))


OPERATORS = {
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_cases_are_there(operator):
    names = {name for name, case in CASES.items() if read(case)[0] == operator}
    assert names
    assert names == {name for name in CASES if name.startswith(PREFIXES[operator])}


@pytest.mark.parametrize("mode", ["", "_training_mode"])
@pytest.mark.parametrize("kind", ["example", "epsilon"])
def test_the_cases_of_batch_normalization_are_there(kind, mode):
    assert f"test_batchnorm_{kind}{mode}" in CASES


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    operator, attributes, inputs, outputs = read(CASES[name])
    results = OPERATORS[operator](attributes, *inputs)
    for actual, expected in zip(results, outputs, strict=True):
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        # The expected values were computed in float32.
        assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
