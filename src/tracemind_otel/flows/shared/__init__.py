"""Sums that many processes share: the port to a state, its adapters, and the thread that talks to it."""
