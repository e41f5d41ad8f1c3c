"""The ratios that the project sets itself, against what was measured."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import exp, fsum, log

from bench.cells import Cell
from bench.compare.catalog import DIRECTIONS, LIMIT, NORM_DIRECTIONS
from bench.compare.results import Key

_MIB = 1 << 20


def _every(cell):
    return True


def _large(cell):
    return cell.nbytes("float32") > 4 * _MIB


def _rows(cell):
    return cell.layout != "NCHW" and cell.nbytes("float32") > 800_000


@dataclass(frozen=True)
class Claim:
    """`system`'s time over `to`'s: at least `geomean` over the cells, `worst` in each."""

    text: str
    system: str
    variant: str
    geomean: float
    worst: float | None = None
    applies: Callable[[Cell], bool] = _every
    directions: tuple[str, ...] = DIRECTIONS
    to: str = "cybn"


CLAIMS = (
    Claim("PyTorch", "torch", "fresh", 3, 1.2),
    Claim("PyTorch, cells over 4 MiB", "torch", "fresh", 4.5, 1.5, _large),
    Claim("PyTorch `out=`", "torch", "out", 2, 1.0),
    Claim("oneDNN, NCHW", "onednn", "out", 5, 2, lambda cell: cell.layout == "NCHW"),
    Claim("oneDNN, NHWC and NC over 800 KB", "onednn", "out", 1.2, 0.95, _rows),
    Claim("ONNX Runtime", "onnxruntime", "fresh", 1.2),
    Claim("ONNX Runtime `out=`", "onnxruntime", "out", 1.2),
    Claim("JAX", "jax", "fresh", 4, 1.2),
    Claim(
        "copy limit, over 4 MiB, training and backward",
        LIMIT,
        "out",
        0.55,
        applies=_large,
        directions=("training", "backward"),
    ),
    Claim(
        "copy limit, over 4 MiB, inference",
        LIMIT,
        "out",
        0.8,
        applies=_large,
        directions=("inference",),
    ),
    Claim(
        "PyTorch, (32, 64)", "torch", "fresh", 1.3, applies=lambda cell: cell.logical == (32, 64)
    ),
    Claim(
        "cybn at its own level, over cybn v3's, over 4 MiB",
        "cybn",
        "out",
        0.7,
        applies=_large,
        to="cybn-v3",
    ),
    Claim("PyTorch, the other norms", "torch", "fresh", 1.5, 1.0, directions=NORM_DIRECTIONS),
)


@dataclass(frozen=True)
class Verdict:
    """What a claim came to for one thread count."""

    claim: Claim
    geomean: float
    worst: float
    worst_case: str

    @property
    def holds(self):
        claim = self.claim
        return self.geomean >= claim.geomean and self.worst >= (claim.worst or 0)


def judge(results, threads, dtype="float32"):
    """Verdicts of the claims that were measured."""
    verdicts = [_verdict(claim, results, threads, dtype) for claim in CLAIMS]
    return [verdict for verdict in verdicts if verdict is not None]


def _verdict(claim, results, threads, dtype):
    ratios = {}
    cells = [name for name, cell in results.cells.items() if claim.applies(cell)]
    for name, direction in product(cells, claim.directions):
        key = Key(threads, dtype, direction, name, claim.system, claim.variant)
        ratio = results.ratio(key, claim.to)
        if ratio is not None:
            ratios[f"{name}, {direction}"] = ratio
    if not ratios:
        return None
    geomean = exp(fsum(map(log, ratios.values())) / len(ratios))
    worst_case = min(ratios, key=ratios.get)
    return Verdict(claim, geomean, ratios[worst_case], worst_case)
