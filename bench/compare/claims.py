"""The ratios that the project sets itself, against what was measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from math import exp, fsum, log

from bench.cells import Cell
from bench.compare.catalog import (
    DIRECTIONS,
    LIMIT,
    NORM_DIRECTIONS,
    SYSTEMS,
    VARIANTS,
    column_title,
)
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
    """`system`'s time over `to`'s, and what the project sets itself for it.

    Attributes
    ----------
    hot, cold
        The least geometric mean over the cells: of hot arrays, and of cold ones with one thread.
    worst
        The least value in each cell, by memory and thread count.
    """

    text: str
    system: str
    variant: str
    hot: float | None = None
    cold: float | None = None
    worst: Mapping[tuple[str, int], float] = field(default_factory=dict)
    applies: Callable[[Cell], bool] = _every
    directions: tuple[str, ...] = DIRECTIONS
    to: str = "cybn"

    def geomean_goal(self, memory, threads):
        if memory == "hot":
            return self.hot
        return self.cold if threads == 1 else None


_COLD_CELLS = {("cold", 1): 1.0, ("cold", 2): 0.9}
_LIMIT = partial(Claim, system=LIMIT, variant="out", applies=_large)

CLAIMS = (
    Claim("PyTorch", "torch", "fresh", 3, 2, {("hot", 1): 1.0, **_COLD_CELLS}),
    Claim("PyTorch, cells over 4 MiB", "torch", "fresh", 4.5, 2.3, applies=_large),
    Claim("PyTorch `out=`", "torch", "out", 2, 1.9, _COLD_CELLS),
    Claim("oneDNN, NCHW", "onednn", "out", 5, applies=lambda cell: cell.layout == "NCHW"),
    Claim("oneDNN, NHWC and NC over 800 KB", "onednn", "out", 1.2, applies=_rows),
    Claim("ONNX Runtime", "onnxruntime", "fresh", 1.2),
    Claim("ONNX Runtime `out=`", "onnxruntime", "out", 1.2),
    Claim("JAX", "jax", "fresh", 4),
    _LIMIT(
        "copy limit, over 4 MiB, training and backward",
        hot=0.65,
        cold=0.55,
        directions=("training", "backward"),
    ),
    _LIMIT("copy limit, over 4 MiB, inference", hot=0.95, cold=0.88, directions=("inference",)),
    Claim("PyTorch, (32, 64)", "torch", "fresh", 1.3, applies=lambda c: c.logical == (32, 64)),
    Claim(
        "cybn at its own level, over cybn v3's, over 4 MiB",
        "cybn",
        "out",
        0.7,
        applies=_large,
        to="cybn-v3",
    ),
    Claim(
        "PyTorch, the other norms",
        "torch",
        "fresh",
        1.5,
        worst={("hot", 1): 1.0, ("hot", 2): 1.0},
        directions=NORM_DIRECTIONS,
    ),
)


@dataclass(frozen=True)
class Verdict:
    """What a claim came to for one thread count; a goal that is None is none."""

    claim: Claim
    geomean: float
    worst: float
    worst_case: str
    geomean_goal: float | None
    worst_goal: float | None

    @property
    def holds(self):
        """Whether both goals are reached, or None if there is none."""
        if self.geomean_goal is None and self.worst_goal is None:
            return None
        return self.geomean >= (self.geomean_goal or 0) and self.worst >= (self.worst_goal or 0)


def judge(results, threads, dtype="float32"):
    """Verdicts of the claims that were measured, and of the other cybns of the run."""
    claims = (*CLAIMS, *_other_cybns(results))
    verdicts = [_verdict(claim, results, threads, dtype) for claim in claims]
    return [verdict for verdict in verdicts if verdict is not None]


def _other_cybns(results):
    """How they compare in each panel, without a goal."""
    for name, entry in SYSTEMS.items():
        if entry.module == "cybn" and name != "cybn" and name in results.configurations:
            for direction, variant in product((*DIRECTIONS, *NORM_DIRECTIONS), VARIANTS):
                text = f"{column_title(name, variant)}, {direction.replace('_', ' ')}"
                yield Claim(text, name, variant, directions=(direction,))


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
    return Verdict(
        claim,
        geomean,
        ratios[worst_case],
        worst_case,
        claim.geomean_goal(results.memory, threads),
        claim.worst.get((results.memory, threads)),
    )
