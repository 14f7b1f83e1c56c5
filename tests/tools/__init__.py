"""Meets the tools of the extra `tools`."""
