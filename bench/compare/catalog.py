"""The systems by name. Nothing here imports one: each is imported in a process of its own."""

from dataclasses import dataclass, field

DIRECTIONS = ("training", "inference", "backward")
NORM_DIRECTIONS = ("norm", "norm_backward")  # of the cells that are not batch norm's
VARIANTS = ("fresh", "out")  # allocate the result, or write to a buffer that is reused


@dataclass(frozen=True)
class Entry:
    """Where a system's class lives and the environment that its process starts with."""

    title: str
    module: str
    environment: dict[str, str] = field(default_factory=dict)
    default: bool = True


SYSTEMS = {
    "cybn": Entry("cybn", "cybn"),
    "torch": Entry("PyTorch", "torch"),
    "onednn": Entry("oneDNN", "onednn"),
    "onnxruntime": Entry("ONNX Runtime", "onnxruntime"),
    "jax": Entry("JAX", "jax"),
    "numpy": Entry("NumPy", "numpy"),
    "sklearn": Entry("scikit-learn", "sklearn"),
    "cybn-v3": Entry("cybn v3", "cybn", {"CYBN_LEVEL": "v3"}, default=False),
    "cybn-v2": Entry("cybn v2", "cybn", {"CYBN_LEVEL": "v2"}, default=False),
    "copy-stream": Entry("streaming copy", "copy_stream"),
    "copy-plain": Entry("plain copy", "copy_plain"),
}
COPIES = ("copy-stream", "copy-plain")
LIMIT = "limit"  # the better of the copies
TITLES = {name: entry.title for name, entry in SYSTEMS.items()} | {LIMIT: "copy limit"}
NORM_SYSTEMS = ("cybn", "torch", "numpy", "cybn-v3", "cybn-v2")
DEFAULT_SYSTEMS = tuple(name for name, entry in SYSTEMS.items() if entry.default)
