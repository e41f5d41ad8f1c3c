"""
New data from another source
============================

A trained layer meets data that are scaled and shifted. `cybn.calibrate` takes new running
statistics from them; gamma, beta and all other weights stay as they were trained.
"""

import matplotlib.pyplot as plt
import numpy as np

import cybn

rng = np.random.default_rng(0)
bn = cybn.BatchNorm(3, axis=-1)
for _ in range(100):
    bn(rng.normal(100, 20, (8, 16, 16, 3)))
bn.eval()

dark = [rng.normal(40, 8, (8, 16, 16, 3)) for _ in range(20)]
as_trained = np.ravel([bn(batch) for batch in dark])

with cybn.calibrate(bn):
    for batch in dark:
        bn(batch)
calibrated = np.ravel([bn(batch) for batch in dark])

bins = np.linspace(-6, 4, 100).tolist()
plt.hist(as_trained, bins, alpha=0.7, label="running statistics of the training data")
plt.hist(calibrated, bins, alpha=0.7, label="after calibrate")
plt.xlabel("what the next layer gets")
plt.legend()
plt.show()
