"""What it costs cybn to run beside PyTorch in one process: `python -m bench.beside_torch`.

Each way runs in a process of its own. Between two timed calls PyTorch either rests or has a
batch norm of its own, whose threads then still spin, waiting for more. The lower quartile is
printed: what another process does costs milliseconds, and not in every call.
"""

import subprocess
import sys
from itertools import product

WAYS = {
    "cybn alone": "import cybn",
    "torch, then cybn": "import torch, cybn",
    "cybn, then torch": "import cybn, torch",
}
SHAPES = {
    "(32, 64)": (32, 64),
    "(8, 64, 32, 32)": (8, 64, 32, 32),
    "(32, 64, 56, 56)": (32, 64, 56, 56),
}
CALLS = 100

CODE = """
import sys, time
import numpy as np
x = np.random.default_rng(0).normal(size={shape}).astype("f4")
out = np.zeros_like(x)
cybn.set_num_threads(2)
if {working}:
    torch.set_num_threads(2)
    tensor = torch.from_numpy(x)
times = []
for _ in range({calls}):
    if {working}:
        torch.nn.functional.batch_norm(tensor, None, None, training=True)
    start = time.perf_counter()
    cybn.forward(x, out=out)
    times.append(time.perf_counter() - start)
print(1e6 * np.quantile(times, 0.25))
"""


def microseconds(imports, shape, working):
    code = imports + CODE.format(shape=shape, working=working, calls=CALLS)
    return float(subprocess.check_output([sys.executable, "-c", code], text=True))


def main():
    print("µs a call".ljust(36), *(name.rjust(18) for name in SHAPES))
    for (name, imports), working in product(WAYS.items(), (False, True)):
        if working and "torch" not in name:
            continue
        times = [microseconds(imports, shape, working) for shape in SHAPES.values()]
        label = f"{name}, torch {'working' if working else 'resting'}" if "torch" in name else name
        print(label.ljust(36), *(f"{time:18.1f}" for time in times))


if __name__ == "__main__":
    main()
