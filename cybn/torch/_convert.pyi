from collections.abc import Callable
from typing import TypeVar

from torch import nn

_Model = TypeVar("_Model", bound=nn.Module)

def convert(
    model: _Model,
    *,
    fuse: bool = False,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
) -> _Model: ...
def revert(model: _Model) -> _Model: ...
