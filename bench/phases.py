"""What each phase costs from the cache, in nanoseconds a value, one thread, float32.

python bench/phases.py prints the figures of docs/design_notes.md. A figure is the slope between two
sizes, both of which fit the second-level cache: so what a call costs by itself drops out.
"""

import time

import numpy as np

import cybn

REPEATS = 41
# name: shape of about n values, axis
SHAPES = {
    "along": (lambda n: (4, n // 4), 0),
    "across, 64": (lambda n: (n // 64, 64), 1),
    "across, 256": (lambda n: (n // 256, 256), 1),
    "across, 784": (lambda n: (n // 784, 784), 1),
    "across, 1024": (lambda n: (n // 1024, 1024), 1),
}
SIZES = 32 * 1024, 64 * 1024


def quick_time(call):
    """Return the time of a call in nanoseconds: that of a quick one, not of the quickest."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter_ns()
        for _ in range(20):
            call()
        times.append((time.perf_counter_ns() - start) / 20)
    return sorted(times)[REPEATS // 10]


def batch_norm_calls(shape, axis):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    dy, out = x[::-1].copy(), np.empty_like(x)
    gamma, beta = np.ones((2, shape[axis]), np.float32)
    running = {
        "running_mean": np.zeros(shape[axis], np.float32),
        "running_var": np.ones(shape[axis], np.float32),
    }
    _, cache = cybn.forward(x, gamma, beta, axis=axis)
    return x.size, {
        "sums": lambda: cybn.moments(x, axis=axis),
        "map": lambda: cybn.forward(x, gamma, beta, **running, training=False, axis=axis, out=out),
        "training": lambda: cybn.forward(x, gamma, beta, axis=axis, out=out),
        "backward": lambda: cybn.backward(dy, cache, out=out),
    }


def layer_norm_calls(features, n):
    x = np.random.default_rng(0).standard_normal((n // features, features), np.float32)
    dy, out = x[::-1].copy(), np.empty_like(x)
    gamma, beta = np.ones((2, features), np.float32)
    _, cache = cybn.layer_norm(x, gamma, beta)
    return x.size, {
        "training": lambda: cybn.layer_norm(x, gamma, beta, out=out),
        "backward": lambda: cybn.backward(dy, cache, out=out),
    }


def print_slopes(name, calls_of):
    (fewer, small), (more, large) = map(calls_of, SIZES)
    slopes = [
        f"{key} {(quick_time(large[key]) - quick_time(small[key])) / (more - fewer):.3f}"
        for key in large
    ]
    print(f"{name + ':':17}{', '.join(slopes)}")


def main():
    with cybn.num_threads(1):
        for name, (shape_of, axis) in SHAPES.items():
            print_slopes(name, lambda n, s=shape_of, a=axis: batch_norm_calls(s(n), a))
        print_slopes("layer norm, 768", lambda n: layer_norm_calls(768, n))


if __name__ == "__main__":
    main()
