"""The chain for a fleet on one machine: `python -m collector.gateway`."""
