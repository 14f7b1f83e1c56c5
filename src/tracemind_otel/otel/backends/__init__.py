"""What each backend reads of a span, and what a preset adds so that it shows there. Adding a backend is adding a row.

A package of yours adds one by the entry-point group `tracemind_otel.presets`, whose entry is a `Backend`.
"""

from .backend import Added, Backend, Field, KindRead, Option, Read
from .derived import SpanFacts, SpanType, Value, copied, fixed
from .lookup import GROUP, Presets, backend_named, chosen_presets
from .readings import Shown, SpanView, shown, with_additions
from .rows import BACKENDS

__all__ = [
    "BACKENDS",
    "GROUP",
    "Added",
    "Backend",
    "Field",
    "KindRead",
    "Option",
    "Presets",
    "Read",
    "Shown",
    "SpanFacts",
    "SpanType",
    "SpanView",
    "Value",
    "backend_named",
    "chosen_presets",
    "copied",
    "fixed",
    "shown",
    "with_additions",
]
