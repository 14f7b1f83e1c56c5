"""The local stack: `python -m collector.stack`."""
