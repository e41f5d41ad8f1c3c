"""Run every call in a way that a test chooses, whatever its size."""

SCHEDULERS = "cybn._normalize.schedule", "cybn._backward.schedule"


def force_schedule(monkeypatch, schedule):
    """Every call runs as `schedule` says, a function of the bytes that it moves."""
    for name in SCHEDULERS:
        monkeypatch.setattr(name, schedule)
