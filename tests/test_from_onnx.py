"""from_onnx, against ONNX's reference, which computes with NumPy in float64."""

import doctest
import warnings

import numpy as np
import pytest
from interop import IMAGES, TOLERANCE, other_values, unbiased_step
from numpy.testing import assert_allclose, assert_array_equal

import cybn
from cybn import _interop_onnx


def onnx_model(onnx, kind, arrays, outputs=("y",), opset=23, **attributes):
    """A model of one node, whose parameters are initializers."""
    helper = onnx.helper
    node = helper.make_node(kind, ["x", *arrays], list(outputs), **attributes)
    x, *results = (
        helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None)
        for name in ("x", *outputs)
    )
    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()]
    graph = helper.make_graph([node], "one", [x], results, initializer=tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


class TestOnnx:
    @pytest.fixture(autouse=True)
    def onnx(self):
        self.onnx = pytest.importorskip("onnx")
        self.reference = pytest.importorskip("onnx.reference")

    def model(self, rng, kind, names, shape=(6,), dtype=np.float64, **options):
        arrays = {name: other_values(rng, shape).astype(dtype) for name in names}
        return onnx_model(self.onnx, kind, arrays, **options)

    def run(self, model, x):
        return self.reference.ReferenceEvaluator(model).run(None, {"x": x})

    def taken(self, model):
        return cybn.from_onnx(model.graph.node[0], model.graph.initializer)

    @pytest.mark.parametrize(
        ("kind", "names", "options"),
        [
            ("BatchNormalization", "sbmv", {}),
            ("BatchNormalization", "sbmv", {"epsilon": 0.1}),
            ("LayerNormalization", "sb", {}),
            ("LayerNormalization", "s", {"epsilon": 0.1}),
            ("LayerNormalization", "sb", {"axis": -2, "shape": (4, 6)}),
            ("RMSNormalization", "s", {}),
            ("RMSNormalization", "s", {"axis": -2, "epsilon": 0.1, "shape": (4, 6)}),
            ("GroupNormalization", "sb", {"num_groups": 3, "stash_type": 11}),
            ("InstanceNormalization", "sb", {"epsilon": 0.1}),
        ],
    )
    def test_inference_is_the_same(self, rng, kind, names, options):
        """In float64, but for the epsilon: the reference has it in float32."""
        model = self.model(rng, kind, names, **options)
        ours = self.taken(model)
        assert not ours.training
        assert ours.dtype == np.float64
        assert ours.eps == options.get("epsilon", 1e-5)
        over_last = kind.startswith(("Layer", "RMS"))
        x = rng.normal(5.0, 2.0, IMAGES if over_last else (5, 6, 3, 4))
        (expected,) = self.run(model, x)
        assert_allclose(ours(x), expected, rtol=3e-8, atol=3e-8)

    def test_training_step(self, rng):
        options = {"outputs": ("y", "mean", "var"), "training_mode": 1, "momentum": 0.75}
        model = self.model(rng, "BatchNormalization", "sbmv", epsilon=0.5, **options)
        ours = self.taken(model)
        assert ours.training
        old, x = ours.running_var.copy(), rng.normal(5.0, 2.0, (5, 6, 3, 4))
        y, mean, new = self.run(model, x)
        assert_allclose(ours(x), y, **TOLERANCE)  # 0.75 and 0.5 are float32 numbers
        assert_allclose(ours.running_mean, mean, rtol=1e-13)
        assert_allclose(ours.running_var, unbiased_step(old, new, 0.75, x.size // 6), rtol=1e-13)

    def test_settings_are_those_that_were_written(self, rng):
        model = self.model(rng, "BatchNormalization", "sbmv", epsilon=1e-3, momentum=0.99)
        ours = self.taken(model)
        assert (ours.eps, ours.momentum) == (1e-3, 1 - 0.99)
        assert self.taken(self.model(rng, "BatchNormalization", "sbmv")).momentum == 1 - 0.9

    def test_outputs_say_training_before_opset_14(self, rng):
        assert not self.taken(self.model(rng, "BatchNormalization", "sbmv", opset=9)).training
        outputs = "y", "mean", "var", "saved_mean", "saved_var"
        model = self.model(rng, "BatchNormalization", "sbmv", outputs=outputs, opset=9)
        assert self.taken(model).training

    def test_parameters_in_a_mapping(self, rng):
        node = self.model(rng, "InstanceNormalization", "sb").graph.node[0]
        arrays = {"s": np.ones(3, np.float32), "b": [0.5, 1.5, 2.5], "other": None}
        with pytest.raises(TypeError, match=r"initializers\['b'\]: expected float32 or float64"):
            cybn.from_onnx(node, {"s": arrays["s"], "b": np.float16([0.5, 1.5, 2.5])})
        ours = cybn.from_onnx(node, arrays)
        assert_array_equal(ours.beta, arrays["b"])

    def test_conformance_cases(self):
        """ONNX's own, whose parameters are inputs: taken from their data."""
        loader = pytest.importorskip("onnx.backend.test.loader")
        prefixes = "test_batchnorm_", "test_layer_norm", "test_rms_norm", "test_instancenorm_"
        taken = 0
        with warnings.catch_warnings(action="ignore"):  # other operators' cases overflow on purpose
            cases = loader.load_model_tests(kind="node")
        for case in cases:
            if not case.name.startswith((*prefixes, "test_group_norm")) or "expanded" in case.name:
                continue
            (node,) = case.model.graph.node
            inputs, outputs = case.data_sets[0]
            values = {i.name: v for i, v in zip(case.model.graph.input, inputs, strict=True)}
            x = values[node.input[0]]
            if any(a.name == "axis" and a.i >= 0 for a in node.attribute):
                with pytest.raises(ValueError, match=r"node\.axis: "):
                    cybn.from_onnx(node, values)
                continue
            taken += 1
            y = cybn.from_onnx(node, values)(x)
            assert_allclose(y, outputs[0], rtol=1e-5, atol=1e-5)  # computed in float32
        assert taken > 15

    def test_refused(self, rng):
        helper, norm = self.onnx.helper, "BatchNormalization"
        arrays = dict.fromkeys("sbmv", np.ones(3, np.float32))
        inputs = ["x", *arrays]
        foreign = helper.make_node(norm, inputs, ["y"], domain="com.example")
        for node, match in [
            (helper.make_node("Conv", ["x", "w"], ["y"]), r"node: expected one of ONNX's .* Conv$"),
            (foreign, r"node: .*, got com\.example\.BatchNormalization"),
            (None, "node: .*NoneType"),
        ]:
            with pytest.raises(TypeError, match=match):
                cybn.from_onnx(node, arrays)
        for node, match in [
            (helper.make_node(norm, ["x", *"sbmw"], ["y"]), r"initializers: expected 'w', .* var"),
            (
                helper.make_node(norm, ["x", *"sbm"], ["y"]),
                r"node\.input: expected a name of its v",
            ),
            (helper.make_node(norm, ["x", "s", "b", "", "v"], ["y"]), r"node\.input: .* mean"),
            (helper.make_node(norm, inputs, ["y"], spatial=0), r"node\.spatial: expected 1, got 0"),
            (
                helper.make_node("LayerNormalization", inputs[:3], ["y"], axis=1),
                r"node\.axis: expected -1, as the scale has shape \(3,\), got 1",
            ),
        ]:
            with pytest.raises(ValueError, match=match):
                cybn.from_onnx(node, arrays)

    def test_examples_in_docstrings(self):
        assert doctest.testmod(_interop_onnx).failed == 0
