"""cybn and PyTorch in one process, in both orders of import, each with several threads."""

import importlib.util

import pytest
from forks import region
from levels import run_python

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="without PyTorch")

CODE = """
import {}, {}
import os, threading
import numpy as np
from forks import X, region

torch.set_num_threads(2)
tensor = torch.from_numpy(X)

def torch_region():
    return torch.nn.functional.batch_norm(tensor, None, None, training=True).numpy()

def both():
    digest = region()
    assert np.abs(torch_region() - cybn.forward(X)[0]).max() < 1e-4
    assert region() == digest
    return digest

digest = both()
threads = [threading.Thread(target=both) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
torch_region()
pid = os.fork()
if pid == 0:
    os._exit(region() != digest)
assert os.waitpid(pid, 0)[1] == 0
print(digest.hex())
"""


@pytest.mark.parametrize("order", [("torch", "cybn"), ("cybn", "torch")], ids=" before ".join)
def test_both_compute_and_fork(order):
    assert run_python("-c", CODE.format(*order)).strip() == region().hex()
