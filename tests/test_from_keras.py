"""from_keras, against Keras itself, which knows no more than float32."""

import doctest
import os
import warnings

import numpy as np
import pytest
from checks import assert_close
from interop import IMAGES, other_values, unbiased_step

import cybn
from cybn import _interop_keras

# Of Keras itself, where it reads PyTorch's tensors.
pytestmark = pytest.mark.filterwarnings(r"ignore:__array__:DeprecationWarning:keras\.")


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
