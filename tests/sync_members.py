"""What the checks of SyncBatchNorm share, in each process of a group, which this joins."""

import functools

import torch
from sync_ranks import join
from torch import distributed

RANK, SIZE = join()
CHECKS = {}


def check(*options):
    """Make a check of a function, for each of its options."""

    def decorate(function):
        name = function.__name__
        for given in options:
            label = ",".join(map(str, given)).replace("torch.", "")
            CHECKS[f"{name}[{label}]"] = functools.partial(function, *given)
        if not options:
            CHECKS[name] = function
        return function

    return decorate


def draw(*shape, dtype=torch.float64, seed=0):
    """Return values that all processes agree on, in a dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def gathered(tensor):
    """Return a tensor of all processes, one below the other."""
    result = [torch.empty_like(tensor) for _ in range(SIZE)]
    distributed.all_gather(result, tensor.contiguous())
    return torch.stack(result)


def summed(tensor):
    total = tensor.detach().double().clone()
    distributed.all_reduce(total)
    return total
