"""Faults on purpose, and then the accounts: `python -m benchmarks.chaos`."""
