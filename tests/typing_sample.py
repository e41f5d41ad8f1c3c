"""The public API as a user with a strict type checker writes it.

mypy checks it, and it runs with nothing but NumPy.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import cybn

FloatArray = NDArray[np.floating[Any]]


def normalize_and_back(x: NDArray[np.float32]) -> cybn.Gradients:
    running_mean, running_var = np.zeros(3), np.ones(3)
    y, cache = cybn.forward(
        x, np.ones(3), None, running_mean=running_mean, running_var=running_var, momentum=0.5
    )
    assert_type(y, FloatArray)
    assert_type(cache, cybn.Cache)
    assert_type(cache.x, FloatArray | None)
    assert_type(cache.mean, NDArray[np.float64])
    assert_type(cache.count, int | NDArray[np.int64])
    gradients = cybn.backward(np.ones_like(y), cache, out=np.empty_like(y))
    cybn.forward(
        x, None, None, running_mean=running_mean, running_var=running_var, training=False, out=x
    )
    return gradients


def train_a_layer(x: NDArray[np.float32]) -> FloatArray:
    layer = cybn.BatchNorm(3, axis=-1, momentum=None, dtype=np.float64)
    y = layer(x)
    assert_type(y, FloatArray)
    dx = layer.backward(np.ones_like(y))
    assert_type(layer.dgamma, FloatArray | None)
    assert layer.gamma is not None
    assert layer.dgamma is not None
    layer.gamma -= 0.1 * layer.dgamma

    copy = cybn.BatchNorm(3, axis=-1, momentum=None)
    copy.load_state_dict(layer.state_dict())
    assert_type(copy.freeze().train().eval(), cybn.BatchNorm)
    assert_type(copy.training, bool)
    return dx


def train_the_relatives(x: NDArray[np.float32]) -> None:
    x = x.reshape(4, 4, 3)
    layers = [
        cybn.LayerNorm(3),
        cybn.RMSNorm((3,), dtype=np.float64),
        cybn.GroupNorm(1, 3, axis=-1),
        cybn.InstanceNorm(3, axis=-1, track_running_stats=True),
    ]
    for layer in layers:
        assert_type(layer.train()(x), FloatArray)
        layer.backward(x, out=np.empty_like(x))
        assert_type(layer.eval().state_dict(), dict[str, NDArray[Any]])
    assert_type(cybn.RMSNorm(3).beta, None)
    assert_type(cybn.InstanceNorm(3).eval(), cybn.InstanceNorm)


def merge_statistics(x: NDArray[np.float32]) -> None:
    total = sum(cybn.moments(rows) for rows in np.split(x, 2))
    assert isinstance(total, cybn.Moments)
    total += cybn.moments(x, axis=-1, where=True)
    assert_type(total.std(ddof=1), NDArray[np.float64])
    assert_type(total.count, int | NDArray[np.int64])

    layer = cybn.BatchNorm(3)
    with cybn.calibrate(layer, layer):
        layer(x, where=np.ones((16, 1), bool))


def configure() -> None:
    cybn.set_num_threads(1)
    with cybn.num_threads(2):
        assert_type(cybn.get_num_threads(), int)
    assert_type(cybn.show_config(mode="dict"), dict[str, Any])
    cybn.show_config()


def main() -> None:
    x = np.random.default_rng(0).normal(5, 2, (16, 3)).astype(np.float32)
    dx, dgamma, dbeta = normalize_and_back(x.copy())
    assert_type(dgamma, FloatArray | None)
    assert dx.shape == train_a_layer(x).shape == x.shape
    assert abs(dx).max() < 1e-6  # the sum of y does not depend on x
    assert dbeta is None
    train_the_relatives(x)
    merge_statistics(x)
    configure()


if __name__ == "__main__":
    main()
