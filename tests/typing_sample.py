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
    y, cache = cybn.forward(x, np.ones(3), None, running_mean, running_var, momentum=0.5)
    assert_type(y, FloatArray)
    assert_type(cache, cybn.Cache)
    assert_type(cache.x, FloatArray | None)
    assert_type(cache.mean, NDArray[np.float64])
    assert_type(cache.count, int)
    gradients = cybn.backward(np.ones_like(y), cache, out=np.empty_like(y))
    cybn.forward(x, None, None, running_mean, running_var, training=False, out=x)
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
    configure()


if __name__ == "__main__":
    main()
