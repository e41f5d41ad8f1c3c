"""
Statistics of more data than memory
===================================

`cybn.moments` takes count, mean and variance of one piece after the other, and
`cybn.Moments.merge` makes of them what all the data together would give.
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np

import cybn

with tempfile.NamedTemporaryFile() as file:
    images = np.memmap(file, np.uint8, "w+", shape=(2000, 32, 32, 3))
    rng = np.random.default_rng(0)
    for i in range(0, 2000, 100):
        images[i : i + 100] = rng.normal([200, 120, 60], [10, 30, 20], (100, 32, 32, 3))

    pieces = (images[i : i + 100] for i in range(0, 2000, 100))  # 300 kB each
    total = cybn.Moments.merge(cybn.moments(piece, axis=-1) for piece in pieces)

    assert total.count == 2000 * 32 * 32
    assert np.allclose(total.mean, images.mean(axis=(0, 1, 2)))

colors = ["red", "green", "blue"]
plt.bar(colors, total.mean, yerr=total.std(), color=["#d1495b", "#3c9d4e", "#2f6db5"], capsize=8)
plt.title(f"mean and deviation of {total.count:,} pixels")
plt.show()
