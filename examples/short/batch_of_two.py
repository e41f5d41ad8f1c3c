"""
Small batches: batch norm or group norm
=======================================

Batch norm makes a sample's result depend on the others in its batch, the more the smaller the
batch is. Group norm looks at each sample alone.
"""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

import cybn

rng = np.random.default_rng(0)
data = rng.normal(size=(1000, 32)).astype(np.float32)
sample = data[:1]
sizes = [2, 4, 8, 16, 32, 64]


def spread(norm: Callable[..., tuple[NDArray[np.float32], object]], size: int) -> float:
    """How much the first feature of the sample varies from batch to batch."""
    others = (rng.choice(data, size - 1) for _ in range(300))
    return float(np.std([norm(np.concatenate([sample, batch]))[0][0, 0] for batch in others]))


by_batch = [spread(cybn.batch_norm, size) for size in sizes]
by_group = [spread(lambda x: cybn.group_norm(x, 4), size) for size in sizes]

plt.plot(sizes, by_batch, "o-", label="batch norm")
plt.plot(sizes, by_group, "o-", label="group norm, 4 groups")
plt.xscale("log", base=2)
plt.xlabel("batch size")
plt.ylabel("deviation of one sample's result")
plt.legend()
plt.show()
