"""The systems by name. Nothing here imports one: each is imported in a process of its own."""

from dataclasses import dataclass, field
from pathlib import Path

DIRECTIONS = ("training", "inference", "backward")
NORM_DIRECTIONS = ("norm", "norm_backward")  # of the cells that are not batch norm's
VARIANTS = ("fresh", "out")  # allocate the result, or write to a buffer that is reused


@dataclass(frozen=True)
class Entry:
    """Where a system's class lives and the environment that its process starts with.

    `checkout` is the folder whose cybn it takes, if not this one's.
    """

    title: str
    module: str
    environment: dict[str, str] = field(default_factory=dict)
    default: bool = True
    checkout: str | None = None


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
NORM_MODULES = ("cybn", "torch", "numpy")
DEFAULT_SYSTEMS = tuple(name for name, entry in SYSTEMS.items() if entry.default)


def column_title(system, variant):
    title = "copy limit" if system == LIMIT else SYSTEMS[system].title
    return title + (" `out=`" if variant == "out" else "")


def add_cybn(text):
    """Add a cybn of NAME=[CHECKOUT][,VARIABLE=VALUE...] to the systems, and return its name."""
    name, _, rest = text.partition("=")
    checkout, *settings = rest.split(",")
    if not name or name in SYSTEMS or not all("=" in setting for setting in settings):
        raise ValueError(f"not NAME=[CHECKOUT][,VARIABLE=VALUE...] with a new name: {text!r}")
    folder = Path(checkout).resolve()
    if checkout and not (folder / "cybn" / "__init__.py").exists():
        raise ValueError(f"no checkout of cybn: {checkout!r}")
    environment = dict(setting.split("=", 1) for setting in settings)
    SYSTEMS[name] = Entry(name, "cybn", environment, False, str(folder) if checkout else None)
    return name
