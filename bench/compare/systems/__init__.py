"""One module per system, each with a class `System` of this form.

`System(threads)` sets the system up. `training`, `inference` and `backward` take a
`bench.cells.Problem` and `reuse` (write to a buffer made beforehand), and return a
`Task`, or None where the system does not have that case. So do `norm` and `norm_backward`, for the
cells of the other norms, in the systems of `catalog.NORM_MODULES`.

In a cold run a system makes many tasks of one cell, from problems with the same values. A system
with a method `in_turn(tasks)` makes a round of them itself; for the others `cold.in_turn` does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """What is timed, and how its result is read.

    Attributes
    ----------
    run
        The work, without arguments.
    read
        Turns what `run` returned into a tuple of NumPy arrays in the cell's layout:
        (y,) or (dx, dgamma, dbeta). None for work that computes nothing to compare.
    calls
        How many calls one `run` stands for.
    """

    run: Callable[[], Any]
    read: Callable[[Any], tuple] | None
    calls: int = 1
