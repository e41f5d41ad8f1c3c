"""
An image block, channels last
=============================

A 3 x 3 convolution, batch norm and ReLU on images of shape (N, height, width, channels): forward
and backward. ``axis=-1`` names the channels, the axis that batch norm keeps.
"""

import matplotlib.pyplot as plt
import numpy as np

import cybn

rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (16, 34, 34, 3)).astype(np.float32)
kernel = rng.normal(size=(3, 3, 3, 8)).astype(np.float32)
gamma, beta = np.ones(8, np.float32), np.zeros(8, np.float32)
running_mean, running_var = np.zeros(8, np.float32), np.ones(8, np.float32)

patches = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
convolved = np.einsum("nhwcij,ijco->nhwo", patches, kernel, optimize=True)
y, cache = cybn.batch_norm(
    convolved, gamma, beta, running_mean=running_mean, running_var=running_var, axis=-1
)
block = np.maximum(y, 0)

dy = np.where(block > 0, np.float32(1), 0)  # as if the loss were the sum of the block
dconvolved, dgamma, dbeta = cybn.backward(dy, cache)
dkernel = np.einsum("nhwcij,nhwo->ijco", patches, dconvolved, optimize=True)

figure, (left, right) = plt.subplots(1, 2, layout="constrained")
left.boxplot(convolved.reshape(-1, 8), sym="")
left.set(title="convolved", xlabel="channel")
right.boxplot(y.reshape(-1, 8), sym="")
right.set(title="normalized", xlabel="channel")
plt.show()
