"""Processes of which one fails, in a way that the command names: see test_torch_sync."""

import os
import signal
import sys
import time
from datetime import timedelta

import torch
from sync_ranks import join

from cybn.torch import SyncBatchNorm

GIVE_UP = 6  # seconds


def fail(how):
    if how == "wrong shape":
        module(torch.ones(4, 2))
    if how == "raises elsewhere":
        raise RuntimeError("no more data")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "late":
        time.sleep(2 * GIVE_UP)
        os._exit(0)


rank, size = join()
group = torch.distributed.new_group(timeout=timedelta(seconds=GIVE_UP))
module = SyncBatchNorm(3, process_group=group)
module(torch.randn(4, 3))
if rank == size - 1:
    fail(sys.argv[1])
begin = time.monotonic()
try:
    module(torch.randn(4, 3))
finally:
    print(time.monotonic() - begin)
