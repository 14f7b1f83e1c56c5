"""Groups of equal spans, so that a long trace stays readable: fifty equal calls are one line. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from .otlp_file import FileSpan

FOLDED_FROM = 6
"""Equal siblings that become one line; fewer are shown one by one."""

Shape = int
"""Equal for spans that look alike, with all that is below them."""


def shapes(
    tops: Sequence[FileSpan], children: Mapping[str, Sequence[FileSpan]], look: Callable[[FileSpan], Hashable | None]
) -> dict[int, Shape]:
    """The shape of each span below these, by the span's identity.

    Args:
        tops: the spans to begin with.
        children: the spans below a span, by its id.
        look: what two spans must have in common to look alike; `None` for a span that is like no other.
    """
    ordered, seen = list(tops), {id(span) for span in tops}
    for span in ordered:  # grows while it is read: parents come before their children
        new = [child for child in children.get(span.span_id, ()) if id(child) not in seen]
        seen.update(map(id, new))
        ordered += new
    found: dict[int, Shape] = {}
    known: dict[Hashable, Shape] = {}
    for span in reversed(ordered):
        own = look(span)
        below = tuple(sorted(found.get(id(child), -1) for child in children.get(span.span_id, ())))
        key = ("alone", id(span)) if own is None else (own, below)
        found[id(span)] = known.setdefault(key, len(known))
    return found


def grouped(spans: Sequence[FileSpan], shape_of: Mapping[int, Shape], fold_from: int) -> list[list[FileSpan]]:
    """The spans in groups of one shape, ordered by their first; one of fewer than `fold_from` is taken apart."""
    groups: dict[Shape, list[FileSpan]] = {}
    for span in spans:
        groups.setdefault(shape_of[id(span)], []).append(span)
    apart: list[list[FileSpan]] = []
    for group in groups.values():
        apart += [group] if len(group) >= fold_from else [[span] for span in group]
    return apart
