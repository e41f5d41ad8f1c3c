"""
Data far from zero
==================

Timestamps, temperatures in kelvin, raw sensor values: where the mean is large, float32 arithmetic
loses the digits that matter. cybn computes in float64 and rounds once.
"""

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

import cybn


def textbook(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """``E[x**2] - E[x]**2``, all in float32."""
    mean = x.mean(axis=0)
    var = np.maximum((x * x).mean(axis=0) - mean * mean, 0)
    y: NDArray[np.float32] = (x - mean) / np.sqrt(var + np.float32(1e-5))
    return y


def error(y: NDArray[np.float32], x: NDArray[np.float32]) -> float:
    """The largest error, against NumPy in float64."""
    wide = x.astype(np.float64)
    exact = (wide - wide.mean(axis=0)) / np.sqrt(wide.var(axis=0) + 1e-5)
    return float(np.abs(y - exact).max())


offsets = np.logspace(0, 5, 11)
noise = np.random.default_rng(0).normal(size=(10_000, 4))
arrays = [(noise + offset).astype(np.float32) for offset in offsets]

plt.loglog(offsets, [error(textbook(x), x) for x in arrays], "o-", label="textbook, float32")
plt.loglog(offsets, [error(cybn.batch_norm(x)[0], x) for x in arrays], "o-", label="cybn")
plt.xlabel("mean of the data")
plt.ylabel("largest error")
plt.legend()
plt.show()
