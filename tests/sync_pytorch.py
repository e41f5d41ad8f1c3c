"""PyTorch's own tests of SyncBatchNorm, in each process of a group: see test_torch_sync.

They are written for GPUs, on which nothing in them depends: what moves there stays.
"""

from types import SimpleNamespace

import torch
from sync_ranks import join, report
from torch import nn
from torch.testing._internal.distributed import distributed_test

from cybn.torch import SyncBatchNorm

DDP = nn.parallel.DistributedDataParallel
NAMES = (
    *("", "_No_Affine", "_2D_Input", "_Channels_Last", "_Single_Input_Per_Process", "_half"),
    *("_Diff_Input_Sizes_Running_Value", "_Diff_Input_Sizes_gradient"),
)
OTHERS = (
    *("test_ddp_inference", "test_ddp_sync_bn_training_vs_eval"),
    "test_ddp_uneven_inputs_stop_iteration_sync_bn",
)


class OnCpu(DDP):
    def __init__(self, module, device_ids=None, output_device=None, **options):
        super().__init__(module, **options)


class Case(distributed_test.DistributedTest._DistTestBase, distributed_test.TestDistBackend):
    rank = property(lambda self: torch.distributed.get_rank())

    def _barrier(self, *_, **__):
        torch.distributed.barrier()

    def runTest(self):
        pass


def stay(self, *_, **__):
    return self


def on_cpu(make):
    """Return a function that makes tensors, but on the CPU."""
    return lambda *given, device=None, **options: make(*given, **options)


def stay_on_the_cpu():
    torch.Tensor.cuda = nn.Module.cuda = stay
    torch.cuda.set_device = lambda *_: None
    torch.cuda.current_device = lambda: 0
    tensors = {"randn": on_cpu(torch.randn), "device": lambda *_: torch.device("cpu")}
    distributed_test.torch = SimpleNamespace(**vars(torch) | tensors)
    nn.parallel.DistributedDataParallel = OnCpu
    nn.SyncBatchNorm = SyncBatchNorm


def plain(name):
    """Return a test without what would skip it."""
    test = getattr(Case, name)
    while hasattr(test, "__wrapped__"):
        test = test.__wrapped__
    return lambda: test(Case())


if __name__ == "__main__":
    join()
    stay_on_the_cpu()
    prefix = "test_DistributedDataParallel_SyncBatchNorm"
    report({name: plain(name) for name in (*(prefix + end for end in NAMES), *OTHERS)})
