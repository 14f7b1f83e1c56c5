"""A shared state in a Redis or Valkey server."""

from __future__ import annotations
