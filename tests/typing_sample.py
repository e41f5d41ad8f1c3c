"""The public API as a user with a strict type checker writes it.

mypy and pyright check it, and it runs with nothing but NumPy.
"""

import io
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import cybn

FloatArray = NDArray[np.floating[Any]]
Float32Array = NDArray[np.float32]
Parameter = FloatArray | Any  # None only where there is none


def normalize_and_back(x: Float32Array) -> cybn.Gradients[np.float32]:
    running_mean, running_var = np.zeros(3), np.ones(3)
    y, cache = cybn.batch_norm(
        x, np.ones(3), None, running_mean=running_mean, running_var=running_var, momentum=0.5
    )
    assert_type(y, Float32Array)
    assert_type(cache, cybn.Cache[np.float32])
    assert_type(cache.x, Float32Array | None)
    assert_type(cache.mean, NDArray[np.float64])
    assert_type(cache.count, int | NDArray[np.int64])
    gradients = cybn.backward(np.ones_like(y), cache, out=np.empty_like(y))
    assert_type(gradients.dx, Float32Array)
    cybn.forward(
        x, running_mean=running_mean, running_var=running_var, training=False, out=x, where=x > 0
    )
    return gradients


def keep_the_dtype(x: NDArray[np.float64], rows: list[list[float]]) -> cybn.Cache:
    assert_type(cybn.forward(x)[0], NDArray[np.float64])
    assert_type(cybn.layer_norm(x, out=np.empty_like(x))[0], NDArray[np.float64])
    assert_type(cybn.rms_norm(x)[0], NDArray[np.float64])
    assert_type(cybn.instance_norm(x)[0], NDArray[np.float64])
    assert_type(cybn.group_norm(x, 1)[0], NDArray[np.float64])
    assert_type(cybn.weight_standardize(x)[0], NDArray[np.float64])
    assert_type(cybn.forward(np.arange(6).reshape(2, 3))[0], FloatArray)
    y, cache = cybn.batch_norm(rows, [1, 2], [0, 0])
    assert_type(y, FloatArray)
    assert_type(cybn.backward(rows, cache).dx, FloatArray)
    return cache


def train_a_layer(x: Float32Array) -> FloatArray:
    layer = cybn.BatchNorm(3, axis=-1, momentum=None, dtype=np.float64)
    y = layer(x)
    assert_type(y, Float32Array)
    assert_type(layer([[1.0, 2.0, 3.0]], training=False), FloatArray)
    layer(x, where=x > 0, training=True)
    dx = layer.backward(np.ones_like(y))
    assert_type(layer.dgamma, Parameter)
    layer.gamma -= 0.1 * layer.dgamma
    layer.dbeta *= 0.5
    layer.beta = layer.beta - layer.dbeta
    assert layer.running_mean.shape == layer.gamma.shape == (3,)

    copy = cybn.BatchNorm(3, axis=-1, momentum=None)
    state = {f"bn.{key}": value for key, value in layer.state_dict().items()}
    copy.load_state_dict(state, prefix="bn.")
    weight, bias = cybn.fold(np.ones((3, 2), np.float32), None, copy.eval())
    assert_type(weight, NDArray[np.float32])
    assert_type(bias, NDArray[np.float32])
    assert_type(copy.freeze().train().eval(), cybn.BatchNorm)
    assert_type(copy.training, bool)
    return dx


def train_the_relatives(x: Float32Array) -> None:
    x = x.reshape(4, 4, 3)
    layers: list[cybn.Layer] = [
        cybn.BatchNorm(3, axis=-1, bias=False),
        cybn.LayerNorm(3, bias=False),
        cybn.RMSNorm((3,), dtype=np.float64),
        cybn.GroupNorm(1, 3, axis=-1, bias=False),
        cybn.InstanceNorm(3, axis=-1, affine=True, bias=False, track_running_stats=True),
    ]
    for layer in layers:
        assert_type(layer.train()(x), Float32Array)
        layer.backward(x, out=np.empty_like(x))
        step(layer)
        assert_type(layer.eval().state_dict(), dict[str, Any])
        np.savez(io.BytesIO(), **layer.state_dict())
        assert_type(layer(x, training=True), Float32Array)
    assert_type(cybn.RMSNorm(3).beta, None)
    assert_type(cybn.InstanceNorm(3).eval(), cybn.InstanceNorm)


def step(layer: cybn.Layer, rate: float = 0.1) -> None:
    layer.gamma -= rate * layer.dgamma
    if layer.beta is not None:
        layer.beta -= rate * layer.dbeta


def merge_statistics(x: Float32Array) -> None:
    total = sum(cybn.moments(rows) for rows in np.split(x, 2))
    assert isinstance(total, cybn.Moments)
    total += cybn.moments(x, axis=-1, where=True)
    assert_type(total.std(ddof=1), NDArray[np.float64])
    assert_type(total.count, int | NDArray[np.int64])

    merged = cybn.Moments.merge(cybn.moments(rows) for rows in np.split(x, 2))
    assert_type(merged, cybn.Moments)
    assert_type(merged.standardize(x, ddof=1, out=np.empty_like(x)), NDArray[np.float32])
    assert_type(merged.unstandardize(x.astype(np.float64), axis=-1), NDArray[np.float64])
    assert_type(merged.standardize([[1, 2, 3]], eps=1e-5), FloatArray)

    layer = cybn.BatchNorm(3)
    with cybn.calibrate(layer, layer):
        layer(x, where=np.ones((16, 1), bool))
    assert_type(layer.num_values_tracked, int | NDArray[np.int64])


def configure() -> None:
    cybn.set_num_threads(1)
    cybn.set_num_threads(None)
    with cybn.num_threads(2):
        assert_type(cybn.get_num_threads(), int)
    assert_type(cybn.show_config(mode="dict"), dict[str, Any])
    cybn.show_config()


def main() -> None:
    x = np.random.default_rng(0).normal(5, 2, (16, 3)).astype(np.float32)
    dx, dgamma, dbeta = normalize_and_back(x.copy())
    assert_type(dgamma, Parameter)
    assert dx.shape == train_a_layer(x).shape == x.shape
    assert abs(dx).max() < 1e-6  # the sum of y does not depend on x
    assert dbeta is None
    keep_the_dtype(x.astype(np.float64), [[1.0, 2.0], [3.0, 5.0]])
    train_the_relatives(x)
    merge_statistics(x)
    configure()


if __name__ == "__main__":
    main()
