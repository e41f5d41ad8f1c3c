from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.modules.batchnorm import _BatchNorm

from ._functional import _Activation
from ._modules import _Batch, _BatchAct

_Model = TypeVar("_Model", bound=nn.Module)

class SyncBatchNorm(_Batch, _BatchNorm):
    process_group: ProcessGroup | None
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: ProcessGroup | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None: ...
    def forward(
        self,
        input: Tensor,
        residual: Tensor | None = None,
        activation: _Activation | None = None,
    ) -> Tensor: ...
    @staticmethod
    def convert_sync_batchnorm(
        module: _Model, process_group: ProcessGroup | None = None
    ) -> _Model: ...

class SyncBatchNormAct(_BatchAct, SyncBatchNorm):
    def __init__(
        self, *arguments: Any, activation: _Activation | None = "relu", **options: Any
    ) -> None: ...
    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor: ...  # type: ignore[override]
