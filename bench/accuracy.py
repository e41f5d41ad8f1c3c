"""Largest error of y against float64, of cybn and of PyTorch, on float32 data from easy to hard.

python bench/accuracy.py prints the table of docs/accuracy.md.
"""

import numpy as np
import torch

import cybn

EPS = 1e-5
SHAPES = {"NCHW": (32, 64, 56, 56), "(N, C)": (100_000, 64)}


def draw(kind, shape):
    """Draw float32 values: unit variance around a mean, one constant, or large ones."""
    normal = np.random.default_rng(0).standard_normal(shape, np.float32)
    return {
        "mean 0": normal,
        "mean 1e3": normal + np.float32(1e3),
        "mean 1e4": normal + np.float32(1e4),
        "constant 100.1": np.full(shape, 100.1, np.float32),
        "times 1e20": normal * np.float32(1e20),
    }[kind]


KINDS = ["mean 0", "mean 1e3", "mean 1e4", "constant 100.1", "times 1e20"]


def run_float64(x):
    """Normalize in float64, in two passes."""
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    deviations = x.astype(np.float64)
    deviations -= deviations.mean(axis=axes, keepdims=True)
    return deviations / np.sqrt(np.square(deviations).mean(axis=axes, keepdims=True) + EPS)


def run_cybn(x):
    return cybn.forward(x, eps=EPS)[0]


def run_torch(x):
    return torch.nn.functional.batch_norm(
        torch.from_numpy(x), None, None, training=True, eps=EPS
    ).numpy()


def main():
    torch.set_num_threads(1)
    cybn.set_num_threads(1)
    print(f"cybn {cybn.__version__}, PyTorch {torch.__version__}\n")
    print("| float32 values | layout | cybn | PyTorch | rounding alone |\n|---|---|---|---|---|")
    for kind in KINDS:
        for layout, shape in SHAPES.items():
            x = draw(kind, shape)
            exact = run_float64(x)
            results = run_cybn(x), run_torch(x), exact.astype(np.float32)
            errors = " | ".join(f"{np.abs(y - exact).max():.1e}" for y in results)
            print(f"| {kind} | {layout} | {errors} |")


if __name__ == "__main__":
    main()
