"""What the examples share: a small network in plain NumPy, its training, and the digits.

A layer is called forward, and its ``backward(dy)`` returns ``dx``. The gradient of a parameter is
kept under the parameter's name with a ``d`` in front, as ``cybn.BatchNorm`` keeps its ``dgamma``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

PARAMETER_NAMES = ("weight", "bias", "gamma", "beta")

FloatArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.integer[Any]]
# x_train, x_test, labels_train, labels_test
Digits: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32], IntArray, IntArray]


class Rows(Protocol):
    """What is cut into batches: an array, or arrays that belong together."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


class Layer(Protocol):
    """What a network is made of."""

    def __call__(self, x: FloatArray, /, *args: Any, **kwargs: Any) -> FloatArray: ...
    def backward(self, dy: FloatArray, /) -> FloatArray: ...


class Dense:
    """``y = x @ weight + bias`` over the last axis, with He's initial weights."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        scale = np.sqrt(2 / inputs)
        self.weight = rng.normal(scale=scale, size=(inputs, outputs)).astype(np.float32)
        self.bias = np.zeros(outputs, np.float32)

    def __call__(self, x: FloatArray) -> FloatArray:
        self.x = x.reshape(-1, x.shape[-1])
        y = self.x @ self.weight + self.bias
        return y.reshape(*x.shape[:-1], -1)

    def backward(self, dy: FloatArray) -> FloatArray:
        rows = dy.reshape(-1, dy.shape[-1])
        self.dweight = self.x.T @ rows
        self.dbias = rows.sum(axis=0)
        return (rows @ self.weight.T).reshape(*dy.shape[:-1], -1)

    def state_dict(self) -> dict[str, NDArray[np.float32]]:
        return {"weight": self.weight, "bias": self.bias}

    def load_state_dict(self, state: dict[str, NDArray[np.float32]]) -> None:
        self.weight[...] = state["weight"]
        self.bias[...] = state["bias"]


class ReLU:
    """``y = max(x, 0)``."""

    def __call__(self, x: FloatArray) -> FloatArray:
        self.positive = x > 0
        return np.maximum(x, 0)

    def backward(self, dy: FloatArray) -> FloatArray:
        return dy * self.positive


class Network:
    """Layers, each fed with the result of the one before."""

    def __init__(self, *layers: Layer) -> None:
        self.layers: tuple[Any, ...] = layers  # some have parameters, a state or a mode, too

    def __call__(self, x: Any) -> FloatArray:
        y: FloatArray = x
        for layer in self.layers:
            y = layer(y)
        return y

    def backward(self, dy: FloatArray) -> FloatArray:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def set_training(self, training: bool) -> None:
        """Switch the layers that differ between training and inference."""
        for layer in self.layers:
            if hasattr(layer, "training"):
                layer.train() if training else layer.eval()

    def parameters(self) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield each parameter with its gradient."""
        for layer in self.layers:
            for name in PARAMETER_NAMES:
                if getattr(layer, name, None) is not None:
                    yield getattr(layer, name), getattr(layer, "d" + name)

    def save(self, path: Path) -> None:
        """Write every layer's state to an ``.npz`` file, under keys like ``1.running_mean``."""
        arrays: dict[str, Any] = {}
        for index, layer in self._stateful_layers():
            arrays |= {f"{index}.{key}": value for key, value in layer.state_dict().items()}
        np.savez(path, **arrays)

    def load(self, path: Path) -> None:
        """Read what `save` wrote into a network of the same layers."""
        with np.load(path, allow_pickle=False) as file:
            for index, layer in self._stateful_layers():
                prefix = f"{index}."
                keys = [key for key in file if key.startswith(prefix)]
                layer.load_state_dict({key.removeprefix(prefix): file[key] for key in keys})

    def _stateful_layers(self) -> list[tuple[int, Any]]:
        return [(i, layer) for i, layer in enumerate(self.layers) if hasattr(layer, "state_dict")]


def cross_entropy_gradient(logits: FloatArray, labels: IntArray) -> FloatArray:
    """Return the gradient of the mean softmax cross-entropy with respect to the logits."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    gradient: FloatArray = exponentials / exponentials.sum(axis=1, keepdims=True)
    gradient[np.arange(len(labels)), labels] -= 1
    return gradient / len(labels)


def sgd_step(network: Network, learning_rate: float) -> None:
    """Move every parameter against its gradient, in place."""
    for parameter, gradient in network.parameters():
        parameter -= learning_rate * gradient


def mini_batches(count: int, batch_size: int, rng: np.random.Generator) -> list[IntArray]:
    """Return the shuffled row numbers ``0 .. count - 1``, cut into batches.

    The rows left over at the end join the last batch: a batch of a few rows would give poor
    statistics, and one of a single row has none (`cybn.BatchNorm` refuses it).
    """
    cuts = range(batch_size, count - batch_size + 1, batch_size)
    return np.split(rng.permutation(count), cuts)


def train_epoch(
    network: Network,
    x: Rows,
    labels: IntArray,
    batch_size: int,
    learning_rate: float,
    rng: np.random.Generator,
) -> None:
    """Train on every row once."""
    network.set_training(True)
    for batch in mini_batches(len(x), batch_size, rng):
        network.backward(cross_entropy_gradient(network(x[batch]), labels[batch]))
        sgd_step(network, learning_rate)


def accuracy(network: Network, x: Rows, labels: IntArray) -> float:
    """Return the share of rows that the network classifies rightly, in inference mode."""
    network.set_training(False)
    return float(np.mean(network(x).argmax(axis=1) == labels))


def use_one_thread() -> None:
    """Keep cybn and NumPy's matrix products to one thread.

    The networks are so small that several threads would mostly wait for each other.
    """
    threadpool_limits(1)


def split_digits(seed: int) -> Digits:
    """Return ``x_train, x_test, labels_train, labels_test``, rows of 8x8 pixels from 0 to 16."""
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        pixels.astype(np.float32), labels, test_size=0.25, stratify=labels, random_state=seed
    )
    x_train, x_test, labels_train, labels_test = (np.asarray(part) for part in parts)
    return x_train, x_test, labels_train, labels_test


def unit_digits(seed: int) -> Digits:
    """Return what `split_digits` does, with pixels from 0 to 1."""
    x_train, x_test, labels_train, labels_test = split_digits(seed)
    return x_train / np.float32(16), x_test / np.float32(16), labels_train, labels_test


def scaled_digits(seed: int) -> Digits:
    """Return what `split_digits` does, each pixel with mean 0 and deviation 1 in training."""
    x_train, x_test, labels_train, labels_test = split_digits(seed)
    scaler = StandardScaler().fit(x_train)
    scaled_train, scaled_test = (np.asarray(scaler.transform(x)) for x in (x_train, x_test))
    return scaled_train, scaled_test, labels_train, labels_test
