"""
A dense network with batch norm
===============================

Dense, batch norm, ReLU, Dense: in plain NumPy it learns on which of two spirals a point lies.
"""

import matplotlib.pyplot as plt
import numpy as np

import cybn

rng = np.random.default_rng(0)
label = np.arange(600) % 2
angle = rng.uniform(1, 7, 600) + np.pi * label
x = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (angle - np.pi * label)[:, None]

w1, w2 = rng.normal(size=(2, 200)), rng.normal(size=(200, 1)) / 14
bn = cybn.BatchNorm(200, dtype=np.float64)


for _ in range(1000):
    hidden = np.maximum(bn(x @ w1), 0)
    dlogit = (1 / (1 + np.exp(-hidden @ w2)) - label[:, None]) / len(x)
    dhidden = bn.backward(dlogit @ w2.T * (hidden > 0))
    w1 -= 2 * x.T @ dhidden
    w2 -= 2 * hidden.T @ dlogit
    bn.gamma -= 2 * bn.dgamma
    bn.beta -= 2 * bn.dbeta

bn.eval()  # from here on, the running statistics
plane = np.stack(np.meshgrid(np.linspace(-8, 8, 200), np.linspace(-8, 8, 200)), axis=-1)
logit = np.maximum(bn(plane.reshape(-1, 2) @ w1), 0) @ w2

plt.imshow(logit.reshape(200, 200) > 0, extent=(-8, 8, 8, -8), alpha=0.3)
plt.scatter(x[:, 0], x[:, 1], c=label, s=6)
plt.show()
