"""What each process checks about networks under DistributedDataParallel: part of sync_checks."""

import itertools

import pytest
import torch
from sync_members import RANK, SIZE, check, draw, gathered, summed
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import cybn.torch
from cybn.torch import SyncBatchNorm


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(5, 5, 1), nn.BatchNorm2d(5), nn.ReLU(True)

    def forward(self, x):
        out = self.bn(self.conv(x))
        out += x
        return self.relu(out)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU6(inplace=True), Block()),
        *(nn.Flatten(), nn.Linear(45, 4)),
    ).double()


def steps(model, x, labels, total):
    """Return the losses of three training steps over all processes, and the parameters."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels, reduction="sum") / total
        # DDP averages the gradients of the processes, whose losses are parts of a sum.
        (loss * (SIZE if isinstance(model, nn.parallel.DistributedDataParallel) else 1)).backward()
        optimizer.step()
        losses.append(loss.detach())
    model = getattr(model, "module", model)
    return torch.stack(losses), [each.detach() for each in (*model.parameters(), *model.buffers())]


WAYS = {
    "converted": lambda model: cybn.torch.convert(model),
    "fused": lambda model: cybn.torch.convert(model, fuse=True),
}


@check(*itertools.product(WAYS, (True, False)))
def networks_under_ddp(way, broadcast_buffers):
    """Data-parallel and synchronized is as one process with the whole batch."""
    x, labels = draw(4 * SIZE, 3, 5, 5), torch.arange(4 * SIZE) % 4
    cut = slice(0, 3) if RANK == 0 else slice(3 + (RANK - 1) * 4, 3 + RANK * 4)
    cut = slice(cut.start, 4 * SIZE) if RANK == SIZE - 1 else cut  # unequal parts
    expected, expected_state = steps(network(), x, labels, len(x))
    model = SyncBatchNorm.convert_sync_batchnorm(WAYS[way](network()))
    assert type(model[1]) is SyncBatchNorm
    model = nn.parallel.DistributedDataParallel(model, broadcast_buffers=broadcast_buffers)
    losses, state = steps(model, x[cut], labels[cut], len(x))
    assert_close(summed(losses), expected, rtol=1e-9, atol=1e-9)
    assert_close(state, expected_state, rtol=1e-9, atol=1e-9)
    for each in state:
        assert (gathered(each) == each).all()


@check(*((way,) for way in WAYS))
def networks_that_are_not_synchronized(way):
    """DDP with statistics of each process, as with PyTorch's own batch norms."""
    x, labels = draw(4, 3, 5, 5, seed=RANK), torch.arange(4)
    results = []
    for change in (lambda model: model, WAYS[way]):
        model = nn.parallel.DistributedDataParallel(change(network()))
        results.append(steps(model, x, labels, 4))
    assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)


@check()
def pytorchs_conversion_of_a_fused_model():
    """`convert` afterwards makes PyTorch's SyncBatchNorm right, and keeps what was fused."""
    x = draw(2, 3, 5, 5, seed=RANK)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(cybn.torch.convert(network(), fuse=True))
    with pytest.raises(TypeError, match="activation"):
        model(x)
    with pytest.raises(ValueError, match="SyncBatchNorm layers only work with GPU"):
        nn.parallel.DistributedDataParallel(model)
    peer = SyncBatchNorm.convert_sync_batchnorm(cybn.torch.convert(network()))
    assert_close(cybn.torch.convert(model)(x), peer(x), rtol=1e-9, atol=1e-9)
