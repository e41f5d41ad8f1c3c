"""What was measured, and the ratios that follow from it."""

from collections import defaultdict
from itertools import product
from statistics import median
from typing import NamedTuple

from tqdm import tqdm

from bench.cells import Cell
from bench.compare.catalog import COPIES, LIMIT, SYSTEMS, VARIANTS


class Key(NamedTuple):
    """One measured case; `cell` is the cell's name."""

    threads: int
    dtype: str
    direction: str
    cell: str
    system: str
    variant: str

    @property
    def panel(self):
        return self[:3]


class Results:
    """Times of every case, by `Key`.

    Attributes
    ----------
    cells : dict
        The cells by name, in the table's order.
    memory : str
        "hot": each call works on the same arrays; "cold": on others in turn.
    configurations : dict
        What each system says of itself.
    notes : list of str
        Systems left out, wrong results.
    """

    def __init__(self, cells, memory="hot"):
        self.memory = memory
        self.cells = {cell.name: cell for cell in cells}
        self.configurations = {}
        self.notes = []
        self._rounds = defaultdict(list)
        self._wrong = set()

    @classmethod
    def read(cls, content):
        """Results of a run that was written as JSON."""
        cells = [Cell(**{**cell, "logical": tuple(cell["logical"])}) for cell in content["cells"]]
        results = cls(cells, content["memory"])
        results.configurations = content["configurations"]
        for record in content["measurements"]:
            key = Key(*(record[field] for field in Key._fields))
            results._rounds[key] = record["rounds"]
        return results

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)
            tqdm.write(text)

    def add(self, key, outcome):
        """Keep a turn's outcome; a case whose result was wrong is left out from then on."""
        if "wrong" in outcome:
            self._wrong.add(key)
            self.note(f"wrong by {outcome['wrong']:.1e} of the scale, left out: {key}")
        elif key not in self._wrong:
            self._rounds[key].append(outcome["seconds"])

    def seconds(self, key):
        """Median over the rounds, or None. The limit is the better of the copies."""
        if key.system == LIMIT:
            copies = [self.seconds(key._replace(system=copy)) for copy in COPIES]
            return min((copy for copy in copies if copy is not None), default=None)
        return median(self._rounds[key]) if key in self._rounds else None

    def ratio(self, key, to="cybn"):
        """Time of the key's system over that of `to` in the same case, or None."""
        theirs, ours = self.seconds(key), self.seconds(key._replace(system=to))
        return None if theirs is None or ours is None else theirs / ours

    def values(self, field):
        """What a field of the keys takes, in the order of measurement."""
        return list(dict.fromkeys(getattr(key, field) for key in self._rounds))

    def records(self):
        """Everything measured, as plain dictionaries."""
        return [
            {**key._asdict(), "seconds": self.seconds(key), "rounds": rounds}
            for key, rounds in self._rounds.items()
        ]

    def panels(self):
        """Every (threads, dtype, direction) that was measured."""
        return list(product(*(self.values(field) for field in ("threads", "dtype", "direction"))))

    def columns(self, panel):
        """The (system, variant) pairs of a panel: the copies as one, the limit, at the end."""
        measured = {(key.system, key.variant) for key in self._rounds if key.panel == panel}
        columns = [pair for pair in product(SYSTEMS, VARIANTS) if pair in measured]
        columns = [pair for pair in columns if pair[0] not in COPIES]
        has_limit = any((copy, "out") in measured for copy in COPIES)
        return [*columns, (LIMIT, "out")] if has_limit else columns
