"""What the tests of from_keras, from_flax and from_onnx have in common."""

# Some dozens of roundings of 1.1e-16, on both sides. Flax computes variances as E[x²] - E[x]²,
# which with means of 2 deviations costs less than another digit.
TOLERANCE = {"rtol": 1e-11, "atol": 1e-11}
IMAGES = 5, 3, 4, 6


def other_values(rng, shape):
    """What no new layer has, and what a variance can be, too."""
    return rng.uniform(0.5, 2.0, shape)


def unbiased_step(old, new, keep, count):
    """The running variance after a step, from theirs, which averages the biased one."""
    batch = (new - keep * old) / (1 - keep)
    return keep * old + (1 - keep) * batch * count / (count - 1)
