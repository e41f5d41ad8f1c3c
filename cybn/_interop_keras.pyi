from typing import Any

from ._layer import Layer

def from_keras(layer: Any) -> Layer: ...
