"""Run every call in a way that a test chooses, whatever its size."""

from cybn._runtime import kernels

SCHEDULERS = "cybn._normalize.schedule", "cybn._backward.schedule"


def force_schedule(monkeypatch, schedule):
    """Every call runs by the fields of a Schedule that `schedule` returns for its bytes."""
    for name in SCHEDULERS:
        monkeypatch.setattr(name, lambda nbytes: kernels.Schedule(*schedule(nbytes)))
