"""
Running statistics, saved and loaded
====================================

While a layer trains it follows the mean and variance of what it sees. In inference it uses them,
also after they went to a file and came back.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import cybn

batches = np.random.default_rng(0).normal(5, 2, (100, 32, 1))
averaged = cybn.BatchNorm(1)  # momentum=0.1: a new batch weighs a tenth
pooled = cybn.BatchNorm(1, momentum=None)  # every value seen weighs the same
means = []
for batch in batches:
    averaged(batch)
    pooled(batch)
    means.append([averaged.running_mean[0], pooled.running_mean[0]])

with tempfile.TemporaryDirectory() as folder:
    np.savez(Path(folder) / "layer.npz", **pooled.state_dict())
    with np.load(Path(folder) / "layer.npz") as state:
        loaded = cybn.BatchNorm(1, momentum=None)
        loaded.load_state_dict(state)
assert np.array_equal(loaded.eval()(batches[0]), pooled.eval()(batches[0]))

plt.plot(means, label=["momentum=0.1", "momentum=None"])
plt.axhline(5, color="black", linewidth=0.8, label="mean of the data")
plt.xlabel("batches of 32")
plt.ylabel("running mean")
plt.legend()
plt.show()
