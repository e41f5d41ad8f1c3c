"""
A residual block in float16
===========================

A residual block ends with batch norm, the addition of its input, and ReLU: here in one pass over
float16 images of shape (N, height, width, channels). The layers keep their parameters and running
statistics in float32, the default.
"""

import matplotlib.pyplot as plt
import numpy as np

import cybn

rng = np.random.default_rng(0)
x = rng.normal(size=(8, 32, 32, 16)).astype(np.float16)
w1, w2 = rng.normal(size=(2, 16, 16)).astype(np.float16) / 4  # 1 x 1 convolutions
bn1 = cybn.BatchNorm(16, axis=-1, activation="relu")
bn2 = cybn.BatchNorm(16, axis=-1, activation="relu")

hidden = bn1(x @ w1)
y = bn2(hidden @ w2, residual=x)

dy = np.ones_like(y)  # as if the loss were the sum of the block
dhidden = bn2.backward(dy) @ w2.T
dx = bn1.backward(dhidden) @ w1.T + bn2.dresidual  # through the block, and past it

print(y.dtype, dx.dtype, bn2.gamma.dtype, bn2.running_mean.dtype)
separate, _ = cybn.batch_norm((hidden @ w2).astype(np.float64), axis=-1)
exact = np.maximum(separate + x, 0)
assert np.array_equal(y, exact.astype(np.float16))  # rounded once

plt.hist(x.ravel().astype(float), bins=100, alpha=0.6, label="x")
plt.hist(y[y > 0].astype(float), bins=100, alpha=0.6, label="result of the block, above 0")
plt.xlabel("value")
plt.legend()
plt.show()
