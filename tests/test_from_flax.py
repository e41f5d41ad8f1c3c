"""from_flax, against Flax itself, which computes in float64 here."""

import doctest
import warnings

import numpy as np
import pytest
from interop import IMAGES, TOLERANCE, other_values, unbiased_step
from numpy.testing import assert_allclose

import cybn
from cybn import _interop_flax

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
