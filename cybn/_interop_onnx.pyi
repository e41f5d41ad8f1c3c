from collections.abc import Iterable, Mapping
from typing import Any

from ._layer import Layer

def from_onnx(node: Any, initializers: Iterable[Any] | Mapping[str, Any]) -> Layer: ...
