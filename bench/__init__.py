"""Benchmarks: `pytest bench` against plain NumPy, `python -m bench.compare` against the peers."""
