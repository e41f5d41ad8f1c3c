"""cybn.torch in a training loop whose DataLoader has forked workers, which normalize, too."""

import os

from torch_peer import torch

import pytest
from torch import nn
from torch.utils.data import DataLoader, Dataset

import cybn.torch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")

SHAPE = 8, 64, 28, 28  # large enough for several threads
TIMEOUT = 60  # seconds: beyond it is a hang, which the loader reports


class Normalized(Dataset):
    """Samples that a worker normalizes, on as many threads as the parent has."""

    def __init__(self):
        self.x = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        with cybn.num_threads(2):
            return cybn.torch.batch_norm(self.x[index], None, None, training=True)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_that_fork(persistent):
    torch.manual_seed(0)
    data = Normalized()
    with cybn.num_threads(2):
        expected = [data[i] for i in range(len(data))]  # so that there are threads before the fork
        model = nn.Sequential(nn.Conv2d(64, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        model = cybn.torch.convert(model, fuse=True)
        options = {"num_workers": 2, "timeout": TIMEOUT, "persistent_workers": persistent}
        loader = DataLoader(data, None, multiprocessing_context="fork", **options)
        for _ in range(2):
            for x, own in zip(loader, expected, strict=True):
                assert torch.equal(x, own)
                y = model(x)
                y.sum().backward()
                assert y.isfinite().all()
