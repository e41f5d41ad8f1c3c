from collections.abc import Mapping
from typing import Any

from ._layer import Layer

def from_flax(
    module: Any, variables: Mapping[str, Any] | None = None, *, path: str = ""
) -> Layer: ...
