"""PyTorch's own tests of SyncBatchNorm, on the CPU with cybn.torch.SyncBatchNorm: one process.

They are those of torch.testing._internal.distributed.distributed_test that need no GPU but for a
decorator, their calls of `cuda`, and the `device_ids` of DistributedDataParallel.
"""

import functools
import inspect
import os
import tempfile
from types import ModuleType

os.environ |= {"BACKEND": "gloo", "TEMP_DIR": tempfile.gettempdir()}

import torch
from sync_ranks import join, report
from torch import distributed, nn
from torch.testing._internal.common_utils import TestCase
from torch.testing._internal.distributed import distributed_test

import cybn.torch

PREFIX = "test_DistributedDataParallel_SyncBatchNorm"
NAMES = (
    PREFIX,
    f"{PREFIX}_2D_Input",
    f"{PREFIX}_Channels_Last",
    f"{PREFIX}_Diff_Input_Sizes_Running_Value",
    f"{PREFIX}_Diff_Input_Sizes_gradient",
    f"{PREFIX}_No_Affine",
    f"{PREFIX}_Single_Input_Per_Process",
    f"{PREFIX}_half",
    "test_ddp_inference",
    "test_ddp_sync_bn_training_vs_eval",
    "test_ddp_uneven_inputs_stop_iteration_sync_bn",
)


class Changed:
    """A module as PyTorch's tests see it, some of its names with other values."""

    def __init__(self, module, **names):
        self._module = module
        self.__dict__ |= names

    def __getattr__(self, name):
        return getattr(self._module, name)


def on_cpu(function):
    """Return a function of PyTorch's that makes its tensor on the CPU, whatever it is told."""
    return lambda *given, device=None, **options: function(*given, **options)


def same(self, *_):
    return self


def distributed_data_parallel(module, device_ids=None, **options):
    return nn.parallel.DistributedDataParallel(module, **options)


def move_to_cpu():
    """Let PyTorch's tests do without a GPU, and test cybn's class."""
    torch.Tensor.cuda = nn.Module.cuda = same
    parallel = Changed(nn.parallel, DistributedDataParallel=distributed_data_parallel)
    networks = Changed(nn, SyncBatchNorm=cybn.torch.SyncBatchNorm, parallel=parallel)
    cuda = Changed(torch.cuda, set_device=same, current_device=lambda: 0)
    names = {"nn": networks, "cuda": cuda, "randn": on_cpu(torch.randn)}
    distributed_test.nn = networks
    distributed_test.torch = Changed(torch, device=lambda *_: torch.device("cpu"), **names)
    # A proxy cannot be annotated with; the tests ask for this module by its name.
    assert isinstance(distributed_test.F, ModuleType)


class Case(distributed_test.DistributedTest._DistTestBase, TestCase):
    def _barrier(self, *_, **__):
        distributed.barrier()


def run(name):
    case = Case(name)
    case.rank = distributed.get_rank()
    torch.manual_seed(0)
    inspect.unwrap(getattr(Case, name))(case)


if __name__ == "__main__":
    _, size = join()
    move_to_cpu()
    names = [name for name in NAMES if size == 2 or "Single_Input" not in name]
    report({name: functools.partial(run, name) for name in names})
