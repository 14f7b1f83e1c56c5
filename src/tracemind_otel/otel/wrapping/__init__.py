"""Functions of every kind, run inside a span."""
