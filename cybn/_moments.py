"""Statistics that merge."""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations of the values of each channel."""

    count: int
    mean: np.ndarray
    m2: np.ndarray

    def merge(self, other):
        """Return the moments of the values of both, by the formula of Chan et al. (1979)."""
        count = self.count + other.count
        if not other.count or not count:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + delta * delta * (self.count * other.count / count)
        return Moments(count, mean, m2)
