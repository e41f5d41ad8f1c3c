"""cybn.torch.SyncBatchNorm over one to four processes of a gloo group."""

import copy
import doctest
import functools
import pickle

from torch_peer import torch

import pytest
from sync_ranks import outcomes, run
from torch import nn

import cybn.torch
from cybn.torch import SyncBatchNorm, SyncBatchNormAct, _sync

SIZES = 2, 3, 4


@functools.cache
def checked(size):
    return outcomes(run("sync_checks.py", size, timeout=100))


@pytest.mark.parametrize("size", SIZES)
def test_all_checks_pass(size):
    failed = {name: text for name, text in checked(size).items() if text}
    assert not failed, "\n".join(f"{name}: {text}" for name, text in failed.items())
    assert len(checked(size)) > 50
