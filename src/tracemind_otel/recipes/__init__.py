"""Programs to copy from, each runnable as a module."""
