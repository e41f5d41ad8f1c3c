"""from_keras, from_flax and from_onnx, against the packages themselves.

Flax computes in float64 here, and ONNX's reference, in NumPy. Keras knows no more than float32.
"""

import doctest
import os
import warnings

import numpy as np
import pytest
from checks import assert_close
from numpy.testing import assert_allclose, assert_array_equal

import cybn
from cybn import _interop_flax, _interop_keras, _interop_onnx

# Some dozens of roundings of 1.1e-16, on both sides. Flax computes variances as E[x²] - E[x]²,
# which with means of 2 deviations costs less than another digit.
TOLERANCE = {"rtol": 1e-11, "atol": 1e-11}
IMAGES = 5, 3, 4, 6

# Of Keras itself, where it reads PyTorch's tensors.
pytestmark = pytest.mark.filterwarnings(r"ignore:__array__:DeprecationWarning:keras\.")


def other_values(rng, shape):
    """What no new layer has, and what a variance can be, too."""
    return rng.uniform(0.5, 2.0, shape)


def unbiased_step(old, new, keep, count):
    """The running variance after a step, from theirs, which averages the biased one."""
    batch = (new - keep * old) / (1 - keep)
    return keep * old + (1 - keep) * batch * count / (count - 1)


class TestKeras:
    @pytest.fixture(autouse=True)
    def keras(self):
        os.environ.setdefault("KERAS_BACKEND", "torch")
        with warnings.catch_warnings(action="ignore"):
            self.keras = pytest.importorskip("keras")

    def layer(self, rng, kind, shape=IMAGES, dtype="float32", **options):
        layer = getattr(self.keras.layers, kind)(dtype=dtype, **options)
        layer.build((None, *shape[1:]))
        for variable in layer.weights:
            variable.assign(other_values(rng, variable.shape))
        return layer

    def run(self, layer, x, **options):
        convert = self.keras.ops.convert_to_numpy
        return convert(layer(self.keras.ops.convert_to_tensor(x, x.dtype.name), **options))

    def assert_close(self, actual, expected):
        """Within what E[x²] - E[x]², or a product of matrices, loses in float32."""
        assert_close(actual, expected, 1e-5)

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("BatchNormalization", {}),
            ("BatchNormalization", {"axis": 1, "epsilon": 0.1}),
            ("BatchNormalization", {"scale": False}),
            ("BatchNormalization", {"center": False}),
            ("BatchNormalization", {"scale": False, "center": False}),
            ("LayerNormalization", {}),
            ("LayerNormalization", {"axis": (2, 3), "epsilon": 0.1}),
            ("LayerNormalization", {"axis": (-1, -2), "scale": False}),
            ("LayerNormalization", {"scale": False, "center": False}),
            ("GroupNormalization", {"groups": 3}),
            ("GroupNormalization", {"groups": -1, "epsilon": 0.1}),
            ("GroupNormalization", {"groups": 2, "axis": 2, "center": False}),
            ("RMSNormalization", {}),
            ("RMSNormalization", {"axis": (2, 3), "epsilon": 0.1}),
        ],
    )
    def test_inference_is_the_same(self, rng, kind, options):
        theirs = self.layer(rng, kind, **options)
        ours = cybn.from_keras(theirs)
        assert ours.dtype == np.float32
        assert ours.eps == theirs.epsilon
        x = rng.normal(5.0, 2.0, IMAGES).astype(np.float32)
        self.assert_close(ours(x), self.run(theirs, x))

    @pytest.mark.parametrize("axis", [-1, 1])
    def test_training_step(self, rng, axis):
        theirs = self.layer(rng, "BatchNormalization", axis=axis, momentum=0.75)
        ours = cybn.from_keras(theirs).train()
        old, x = ours.running_var.copy(), rng.normal(5.0, 2.0, IMAGES).astype(np.float32)
        self.assert_close(ours(x), self.run(theirs, x, training=True))
        convert = self.keras.ops.convert_to_numpy
        mean, new = (convert(v) for v in (theirs.moving_mean, theirs.moving_variance))
        self.assert_close(ours.running_mean, mean)
        count = x.size // len(mean)
        self.assert_close(ours.running_var, unbiased_step(old, new, 0.75, count))

    def test_untrainable_batch_norm_is_frozen(self, rng):
        theirs = self.layer(rng, "BatchNormalization")
        theirs.trainable = False
        ours, x = cybn.from_keras(theirs).train(), rng.normal(5.0, 2.0, IMAGES).astype(np.float32)
        self.assert_close(ours(x), self.run(theirs, x, training=True))

    def test_float32_of_a_whole_model(self, rng):
        """A dense network of scikit-learn's digits' size, normalized in the middle."""
        layers = self.keras.layers
        model = self.keras.Sequential(
            [layers.Input((64,)), layers.Dense(32), layers.BatchNormalization(), layers.Dense(10)]
        )
        first, norm, last = model.layers
        for variable in norm.weights:
            variable.assign(other_values(rng, variable.shape))
        x = rng.uniform(0, 16, (7, 64)).astype(np.float32)
        expected = self.run(model, x)
        (w1, b1), (w2, b2) = ([np.array(v.numpy()) for v in each.weights] for each in (first, last))
        bn = cybn.from_keras(norm)
        assert bn.dtype == np.float32
        actual = bn(x @ w1 + b1) @ w2 + b2
        self.assert_close(actual, expected)
        w1, b1 = cybn.fold(w1, b1, bn, axis=-1)
        self.assert_close((x @ w1 + b1) @ w2 + b2, expected)

    def test_refused(self, rng):
        layers = self.keras.layers
        for layer, match in [
            (layers.Dense(3), r"layer: expected one of Keras's BatchNormalization, .*\.Dense$"),
            (layers.UnitNormalization(), "layer: "),
            (None, "layer: "),
            (self.layer(rng, "BatchNormalization", dtype="float16"), r"layer\.\w+: .* float16"),
            (self.layer(rng, "LayerNormalization", dtype="bfloat16"), r"layer\.gamma: .*bfloat16"),
        ]:
            with pytest.raises(TypeError, match=match):
                cybn.from_keras(layer)
        for layer, match in [
            (layers.BatchNormalization(), r"layer: expected a built layer, .* layer\.build"),
            (self.layer(rng, "LayerNormalization", axis=1), r"layer\.axis: expected the trailing"),
            (self.layer(rng, "LayerNormalization", axis=(1, 3)), r"layer\.axis: "),
            (self.layer(rng, "BatchNormalization", renorm=True), r"layer\.renorm: expected False"),
        ]:
            with pytest.raises(ValueError, match=match):
                cybn.from_keras(layer)

    def test_classes_made_from_theirs(self, rng):
        norm = self.keras.layers.BatchNormalization

        class Renamed(norm):
            pass

        class Fused(norm):
            def call(self, x, training=None):
                return self.keras.ops.relu(super().call(x, training=training))

        for made in Renamed(), Fused():
            made.build((None, 3))
            if type(made) is Renamed:
                assert cybn.from_keras(made).num_features == 3
            else:
                with pytest.raises(TypeError, match="Fused"):
                    cybn.from_keras(made)

    def test_examples_in_docstrings(self):
        assert doctest.testmod(_interop_keras).failed == 0


LINEN = [
    ("BatchNorm", {"use_running_average": True}),
    ("BatchNorm", {"use_running_average": True, "axis": 1, "epsilon": 0.1}),
    ("BatchNorm", {"use_running_average": True, "use_scale": False}),
    ("BatchNorm", {"use_running_average": True, "use_bias": False}),
    ("BatchNorm", {"use_running_average": True, "use_bias": False, "use_scale": False}),
    ("LayerNorm", {}),
    ("LayerNorm", {"reduction_axes": (-2, -1), "feature_axes": (-2, -1), "epsilon": 0.1}),
    ("LayerNorm", {"use_scale": False}),
    ("RMSNorm", {}),
    ("RMSNorm", {"epsilon": 0.1}),
    ("GroupNorm", {"num_groups": 3}),
    ("GroupNorm", {"num_groups": None, "group_size": 3, "epsilon": 0.1, "use_bias": False}),
    ("InstanceNorm", {}),
    ("InstanceNorm", {"feature_axes": 1, "epsilon": 0.1}),
]
NNX = [
    ("BatchNorm", {"use_running_average": True}),
    ("BatchNorm", {"use_running_average": True, "epsilon": 0.1, "use_scale": False}),
    ("BatchNorm", {"use_running_average": True, "use_bias": False, "use_scale": False}),
    ("LayerNorm", {"epsilon": 0.1}),
    ("LayerNorm", {"use_bias": False, "use_scale": False}),
    ("RMSNorm", {"epsilon": 0.1}),
    ("RMSNorm", {"use_scale": False}),
    ("GroupNorm", {"num_groups": 3, "epsilon": 0.1}),
    ("GroupNorm", {"num_groups": None, "group_size": 3, "use_bias": False, "use_scale": False}),
    ("InstanceNorm", {"use_bias": False, "use_scale": False}),
]


class TestFlax:
    @pytest.fixture(autouse=True)
    def flax(self):
        with warnings.catch_warnings(action="ignore"):
            self.jax = pytest.importorskip("jax")
            self.linen = pytest.importorskip("flax.linen")
            self.nnx = pytest.importorskip("flax.nnx")
        with self.jax.enable_x64(True):
            yield

    def variables(self, rng, module, shape=IMAGES):
        variables = module.init(self.jax.random.key(0), np.ones(shape))
        changed = self.jax.tree.map(lambda v: other_values(rng, v.shape), variables)
        return self.jax.tree.map(np.asarray, changed)

    def nnx_module(self, rng, kind, **options):
        make = getattr(self.nnx, kind)
        module = make(6, **options, param_dtype=np.float64, rngs=self.nnx.Rngs(0))
        for name in ("scale", "bias", "mean", "var"):
            if getattr(module, name, None) is not None:
                shape = getattr(module, name).shape
                getattr(module, name).set_value(self.jax.numpy.asarray(other_values(rng, shape)))
        return module

    @pytest.mark.parametrize(("kind", "options"), LINEN)
    def test_inference_of_linen_is_the_same(self, rng, kind, options):
        module = getattr(self.linen, kind)(**options)
        variables = self.variables(rng, module)
        x = rng.normal(4.0, 2.0, IMAGES)
        expected = np.asarray(module.apply(variables, x))
        ours = cybn.from_flax(module, variables)
        assert not ours.training
        assert_allclose(ours(x), expected, **TOLERANCE)
        assert_allclose(cybn.from_flax(module.bind(variables))(x), expected, **TOLERANCE)

    @pytest.mark.parametrize(("kind", "options"), NNX)
    def test_inference_of_nnx_is_the_same(self, rng, kind, options):
        module = self.nnx_module(rng, kind, **options)
        x = rng.normal(4.0, 2.0, IMAGES)
        ours = cybn.from_flax(module)
        assert not ours.training
        assert_allclose(ours(x), np.asarray(module(self.jax.numpy.asarray(x))), **TOLERANCE)

    def check_step(self, rng, ours, step):
        """Of momentum 0.75."""
        assert ours.training
        old, x = ours.running_var.copy(), rng.normal(4.0, 2.0, IMAGES)
        y, mean, new = map(np.asarray, step(self.jax.numpy.asarray(x)))
        assert_allclose(ours(x), y, **TOLERANCE)
        assert_allclose(ours.running_mean, mean, rtol=1e-13)
        count = x.size // len(mean)
        assert_allclose(ours.running_var, unbiased_step(old, new, 0.75, count), rtol=1e-11)

    def test_training_step_of_linen(self, rng):
        module = self.linen.BatchNorm(use_running_average=False, momentum=0.75)
        variables = self.variables(rng, module)

        def step(x):
            y, changed = module.apply(variables, x, mutable=["batch_stats"])
            return y, changed["batch_stats"]["mean"], changed["batch_stats"]["var"]

        self.check_step(rng, cybn.from_flax(module, variables), step)

    def test_training_step_of_nnx(self, rng):
        module = self.nnx_module(rng, "BatchNorm", momentum=0.75)
        ours = cybn.from_flax(module)
        self.check_step(rng, ours, lambda x: (module(x), module.mean[...], module.var[...]))

    def test_module_of_a_model(self, rng):
        linen = self.linen

        class Block(linen.Module):
            @linen.compact
            def __call__(self, x):
                return linen.BatchNorm(use_running_average=True)(linen.Dense(6)(x))

        class Model(linen.Module):
            @linen.compact
            def __call__(self, x):
                x = Block()(x)
                return Block()(x)

        model, x = Model(), rng.normal(size=(4, 6))
        variables = self.variables(rng, model, x.shape)
        expected, norm = model.apply(variables, x), linen.BatchNorm()
        for block in ("Block_0", "Block_1"):
            dense = variables["params"][block]["Dense_0"]
            bn = cybn.from_flax(norm, variables, path=f"{block}/BatchNorm_0")
            x = bn(x @ dense["kernel"] + dense["bias"])
        assert_allclose(x, np.asarray(expected), **TOLERANCE)

    def test_refused(self, rng):
        linen, nnx = self.linen, self.nnx
        norm = linen.BatchNorm(use_running_average=True)
        variables = self.variables(rng, norm)
        half = linen.LayerNorm(param_dtype=self.jax.numpy.bfloat16)
        halves = half.init(self.jax.random.key(0), np.ones((2, 3), np.float32))
        for arguments, match in [
            ((linen.Dense(3), variables), r"module: expected one of Flax's BatchNorm, .*Dense$"),
            ((nnx.Linear(2, 3, rngs=nnx.Rngs(0)),), "module: .*Linear"),
            ((variables,), "module: .*dict"),
            ((norm,), "variables: expected a mapping, .*, got NoneType"),
            ((nnx.LayerNorm(3, rngs=nnx.Rngs(0)), variables), "variables: expected None"),
            ((half, halves), "scale: expected float32 or float64, got bfloat16"),
        ]:
            with pytest.raises(TypeError, match=match):
                cybn.from_flax(*arguments)
        two = linen.BatchNorm(axis=(-2, -1), use_running_average=True)
        wide = linen.LayerNorm(reduction_axes=(-2, -1))
        for module, given, match in [
            (
                norm,
                variables["params"],
                r"variables: expected params/scale, got \['bias', 'scale'\]",
            ),
            (norm, {"params": variables["params"]}, "variables: expected batch_stats/mean, got "),
            (two, self.variables(rng, two), r"module\.axis: expected one axis, got \(-2, -1\)"),
            (wide, self.variables(rng, wide), r"module\.feature_axes: expected reduction_axes"),
            (linen.LayerNorm(reduction_axes=3, feature_axes=3), variables, "reduction_axes: "),
            (
                linen.LayerNorm(use_bias=False, use_scale=False),
                {},
                "module: expected a scale or bi",
            ),
            (linen.GroupNorm(2, reduction_axes=(1, -1)), variables, r"module\.reduction_axes: "),
        ]:
            with pytest.raises(ValueError, match=match):
                cybn.from_flax(module, given)
        with pytest.raises(ValueError, match=r"expected params/a/b/scale, got .* in place of 'a'"):
            cybn.from_flax(norm, variables, path="a/b")

    def test_examples_in_docstrings(self):
        with self.jax.enable_x64(False):
            assert doctest.testmod(_interop_flax).failed == 0


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
