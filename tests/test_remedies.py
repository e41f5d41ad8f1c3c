"""Errors that show the way out: what to pass instead, which then works."""

import re

import numpy as np
import pytest
from checks import refused

import cybn

N, C, H, W = 8, 4, 6, 3


def images():
    """Of shape (N, H, W, C) for whom it may concern: here C is 3 and comes last."""
    return np.random.default_rng(0).normal(size=(N, C, H, W)).astype(np.float32)


def says(*parts):
    """A pattern for a message that has all of these, in order."""
    return ".*".join(map(re.escape, parts))


class TestAxisOfBatchNorm:
    """The channels', which are kept; NumPy's are those that are reduced."""

    def test_numpys_axes_around_the_channels(self):
        x = images()
        with refused(ValueError, says("axis: ", "got (0, 2, 3)", "kept", "pass axis=1 "), x):
            cybn.batch_norm(x, axis=(0, 2, 3))
        expected = x.astype(np.float64).mean(axis=(0, 2, 3))
        np.testing.assert_allclose(cybn.batch_norm(x, axis=1)[1].mean, expected, atol=1e-15)

    def test_numpys_axes_around_two(self):
        with refused(ValueError, says("axis: ", "pass axis=(1, 2) ")):
            cybn.batch_norm(images(), axis=(0, 3))

    def test_axes_in_disorder_have_no_remedy(self):
        with refused(ValueError, r"axis: expected adjacent axes in order, got \(2, 1\)"):
            cybn.batch_norm(images(), axis=(2, 1))

    @pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
    @pytest.mark.parametrize("axis", [(0, 1, 2), 0, 1, (1, 2)])
    def test_parameters_show_that_other_axes_are_meant(self, axis, name):
        """Of three channels, which come last."""
        x = images()
        arguments = {key: np.ones(W) for key in ("running_mean", "running_var")}
        arguments[name] = np.ones(W)
        with refused(
            ValueError, says(": expected shape", "got (3,)", "axis 3 has 3: pass axis=-1?")
        ):
            cybn.batch_norm(x, axis=axis, **arguments)
        cybn.batch_norm(x, axis=-1, **arguments)

    def test_numpys_axis_0_of_rows(self):
        x = np.ones((N, W))
        with refused(ValueError, says("gamma: ", "axis 1 has 3: pass axis=-1?"), x):
            cybn.batch_norm(x, np.ones(W), axis=0)

    def test_axis_0_without_parameters_keeps_the_rows(self):
        """Documented: each row is normalized by itself."""
        x = images()[:, 0, :, 0]
        _, cache = cybn.batch_norm(x, axis=0)
        np.testing.assert_allclose(cache.mean, x.astype(np.float64).mean(axis=1), atol=1e-15)

    def test_axes_012_without_parameters_keep_the_places(self):
        """Documented: each place of each sample is normalized over its channels."""
        x = images()
        y, cache = cybn.batch_norm(x, axis=(0, 1, 2))
        assert cache.mean.shape == (N, C, H)
        np.testing.assert_array_equal(y, cybn.layer_norm(x)[0])

    def test_parameters_of_two_axes(self):
        with refused(ValueError, says("gamma: ", "axes (1, 2) have (4, 6): pass axis=(1, 2)?")):
            cybn.batch_norm(images(), np.ones((C, H)))

    def test_parameters_of_a_length_that_no_axis_has(self):
        with refused(ValueError, r"gamma: expected shape \(4,\) or \(1, 4, 1, 1\), got \(5,\)$"):
            cybn.batch_norm(images(), np.ones(5))

    def test_torchs_positional_order(self):
        """Swapped arrays of shape (C,) would be overwritten without a word."""
        arrays = [np.full(C, float(i)) for i in range(4)]
        with refused(TypeError, "positional", *arrays):
            cybn.batch_norm(images(), *arrays)
        assert cybn.forward is cybn.batch_norm

    @pytest.mark.parametrize(
        "layer", [cybn.BatchNorm(W), cybn.GroupNorm(1, W), cybn.InstanceNorm(W)], ids=repr
    )
    def test_layer_of_channels_that_come_last(self, layer):
        x = images()
        with refused(ValueError, says("x: expected 3 channels", "axis 3 has 3: pass axis=-1?"), x):
            layer(x)

    def test_layer_of_channels_that_come_first(self):
        with refused(ValueError, says("x: expected 4 channels", "axis 1 has 4: pass axis=1?")):
            cybn.BatchNorm(C, axis=-1)(images())


class TestAxisOfLayerNorm:
    """What is reduced: the trailing axes."""

    @pytest.mark.parametrize("norm", [cybn.layer_norm, cybn.rms_norm])
    @pytest.mark.parametrize(
        ("axis", "moved"), [(1, "(x, 1, -1)"), ((1, 2), "(x, (1, 2), (-2, -1))"), (0, "(x, 0, -1)")]
    )
    def test_other_axes(self, norm, axis, moved):
        x = images()
        with refused(ValueError, says("axis: ", "reduced", f"np.moveaxis{moved} makes "), x):
            norm(x, axis=axis)
        x = eval(f"np.moveaxis{moved}", {"np": np, "x": x})
        norm(x, axis=-1 if isinstance(axis, int) else (-2, -1))

    def test_gamma_of_the_channels(self):
        with refused(ValueError, says("gamma: ", "axis 1 has 4: np.moveaxis(x, 1, -1)")):
            cybn.layer_norm(images(), np.ones(C))

    def test_gamma_of_two_axes(self):
        gamma = np.ones((H, W))
        with refused(ValueError, says("gamma: ", "pass axis=(-2, -1)?")):
            cybn.layer_norm(images(), gamma)
        cybn.layer_norm(images(), gamma, axis=(-2, -1))

    @pytest.mark.parametrize("layer", [cybn.LayerNorm(C), cybn.RMSNorm(C)], ids=repr)
    def test_layer_of_the_channels(self, layer):
        with refused(
            ValueError, says("x: ", "ends in (4,)", "axis 1 has 4: np.moveaxis(x, 1, -1)")
        ):
            layer(images())
        layer(np.moveaxis(images(), 1, -1))


class TestTraining:
    @pytest.mark.parametrize("momentum", [0.1, None])
    def test_a_last_batch_of_one(self, momentum):
        layer = cybn.BatchNorm(C, momentum=momentum)
        with refused(ValueError, says("x: ", "got shape (1, 4)", "eval()", "last batch of one")):
            layer(np.ones((1, C)))
        layer.eval()(np.ones((1, C)))

    def test_inference_without_statistics(self):
        with refused(
            ValueError, says("running_mean: ", "training=False, got None", "training=True")
        ):
            cybn.batch_norm(images(), training=False)

    @pytest.mark.parametrize("name", ["running_mean", "running_var"])
    def test_read_only_running_array(self, name):
        arrays = {"running_mean": np.zeros(C), "running_var": np.ones(C)}
        arrays[name].flags.writeable = False
        with refused(ValueError, says(f"{name}: ", "read-only", "copy")):
            cybn.batch_norm(images(), **arrays)
        arrays[name] = arrays[name].copy()
        cybn.batch_norm(images(), **arrays)


def test_threads_give_the_choice_back():
    before = cybn.get_num_threads()
    cybn.set_num_threads(3)
    assert cybn.get_num_threads() == 3
    cybn.set_num_threads(None)
    assert cybn.get_num_threads() == before


class Frame:
    """What cybn looks at of a DataFrame."""

    def __init__(self, **columns):
        self.values, self.columns = columns, list(columns)
        self.dtypes = [np.asarray(column).dtype for column in columns.values()]

    def __getitem__(self, name):
        return self.values[name]

    def __array__(self, dtype=None, copy=None):
        columns = [np.asarray(column, object) for column in self.values.values()]
        return np.stack(columns, axis=1)


COLUMNS = {"age": [1.0, 2.0, 4.0], "name": ["a", "b", "c"], "size": [1, 2, 3], "city": list("xyz")}


class TestWhatIsNoArray:
    """All that NumPy has no numbers for: a TypeError that names x, and the way to an array."""

    @staticmethod
    def assert_refused(x, *parts):
        for call in (cybn.batch_norm, cybn.layer_norm, cybn.moments, cybn.BatchNorm(3)):
            with refused(TypeError, says("x: ", *parts)):
                call(x)

    def test_frame_with_text(self):
        self.assert_refused(Frame(**COLUMNS), "got Frame", "no plain numbers: name, city")

    def test_frame_of_mixed_numbers(self):
        self.assert_refused(Frame(a=[1.0], b=[True]), "got Frame; use x.to_numpy(np.float64)")

    def test_pandas(self):
        frame = pytest.importorskip("pandas").DataFrame(COLUMNS)
        self.assert_refused(frame, "got DataFrame", "no plain numbers: name, city")
        cybn.batch_norm(frame[["age", "size"]])

    def test_polars(self):
        frame = pytest.importorskip("polars").DataFrame(COLUMNS)
        self.assert_refused(frame, "got DataFrame", "no plain numbers: name, city")

    def test_sparse_matrix(self):
        sparse = pytest.importorskip("scipy.sparse").csr_array(np.eye(3))
        self.assert_refused(sparse, "got csr_array; use x.toarray()")
        cybn.batch_norm(sparse.toarray())

    def test_torch(self):
        torch = pytest.importorskip("torch")
        x = torch.ones(4, 3, requires_grad=True)
        self.assert_refused(x, "got Tensor; use x.detach()")
        cybn.batch_norm(x.detach())
        half = torch.ones(4, 3, dtype=torch.bfloat16)
        self.assert_refused(half, "got Tensor; use x.float()")
        half.requires_grad = True
        self.assert_refused(half, "got Tensor; use x.detach().float()")
        cybn.batch_norm(half.detach().float())

    def test_torch_as_running_array(self):
        torch = pytest.importorskip("torch")
        arrays = {"running_mean": torch.zeros(3), "running_var": torch.ones(3)}
        with refused(TypeError, says("running_mean: ", "got Tensor", "running_mean.numpy()")):
            cybn.batch_norm(np.ones((4, 3)), **arrays)

    def test_list_as_running_array(self):
        with refused(TypeError, says("running_mean: ", "got list; use np.array(running_mean)")):
            cybn.batch_norm(np.ones((4, 3)), running_mean=[0.0] * 3, running_var=np.ones(3))

    def test_jax_tracer(self):
        jax = pytest.importorskip("jax")
        for transform in (jax.jit, jax.vmap, jax.grad):
            with refused(TypeError, says("x: ", "Tracer; call it outside of jax.jit")):
                transform(lambda x: cybn.batch_norm(x, axis=0)[0].sum())(np.ones((4, 3)))
        cybn.batch_norm(jax.numpy.ones((4, 3)))

    def test_objects(self):
        self.assert_refused(np.ones((4, 3), object), "got objects; use x.astype(np.float64)")
        self.assert_refused(None, "got NoneType")
        self.assert_refused({"a": 1}, "got dict")

    def test_object_that_answers_with_errors(self):
        class Hostile:
            columns = dtypes = 1

        self.assert_refused(Hostile(), "got Hostile")

    def test_masked_array(self):
        x = np.ma.masked_array(np.arange(12.0).reshape(4, 3), mask=np.eye(4, 3))
        self.assert_refused(x, "got MaskedArray", "where=~np.ma.getmaskarray(x)")
        y, _ = cybn.batch_norm(x.data, where=~np.ma.getmaskarray(x))
        assert not y[x.mask].any()

    def test_other_arguments_are_named(self):
        x = np.ones((4, 3))
        for name in ("gamma", "beta", "where"):
            with refused(TypeError, says(f"{name}: ", "got objects")):
                cybn.batch_norm(x, **{name: np.ones(3, object)})
        with refused(TypeError, says("dy: ", "got objects")):
            cybn.backward(np.ones((4, 3), object), cybn.batch_norm(x)[1])
