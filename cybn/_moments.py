"""Statistics that merge."""


class Moments:
    """Count, mean and sum of squared deviations of the values of each channel."""

    __slots__ = ("count", "m2", "mean")

    def __init__(self, count, mean, m2):
        self.count = count
        self.mean = mean
        self.m2 = m2

    def __add__(self, other):
        """Return the moments of the values of both, by the formula of Chan et al. (1979)."""
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + delta * delta * (self.count * other.count / count)
        return Moments(count, mean, m2)
