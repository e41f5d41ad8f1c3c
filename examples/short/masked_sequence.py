"""
Sequences of different lengths
==============================

Shorter sequences in a batch end in padding. With ``where=`` it neither enters the statistics nor
the result, whatever it holds.
"""

import matplotlib.pyplot as plt
import numpy as np

import cybn

rng = np.random.default_rng(0)
lengths = np.array([30, 12, 21, 5, 17, 26])
features, longest = 4, lengths.max()
steps = rng.normal(10, 2, (len(lengths), longest, features)).astype(np.float32)
inside = np.arange(longest) < lengths[:, None]  # (N, T)
steps[~inside] = np.nan  # the padding could hold anything

y, cache = cybn.batch_norm(steps, axis=-1, where=inside[..., None])

assert np.allclose(y[inside].mean(axis=0), 0, atol=1e-5)
assert np.all(y[~inside] == 0)

figure, (top, bottom) = plt.subplots(2, 1, layout="constrained")
top.imshow(steps[..., 0], aspect="auto")
top.set(title="first feature of each sequence", ylabel="sequence")
bottom.imshow(y[..., 0], aspect="auto")
bottom.set(title="normalized: the padding is 0", xlabel="step", ylabel="sequence")
plt.show()
