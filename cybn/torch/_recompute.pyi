from collections.abc import Iterator
from contextlib import contextmanager

@contextmanager
def recompute() -> Iterator[None]: ...
