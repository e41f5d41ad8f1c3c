"""Imports that wait until a large call needs them, so that ``import cybn`` does not."""

import importlib
import os
import threading

# A child of a fork would wait forever for a module that another thread had begun to import. So a
# fork waits until it is imported.
_importing = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_importing.acquire,
        after_in_parent=_importing.release,
        after_in_child=_importing.release,
    )


def late(name):
    """Return a module of this package, imported now if it was not yet."""
    with _importing:
        return importlib.import_module(f"{__package__}.{name}")
