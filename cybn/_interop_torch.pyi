from typing import Any

from ._layer import Layer

def from_torch(module: Any) -> Layer: ...
