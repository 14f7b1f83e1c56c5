"""What a process that has ended left in its directory: segments, and spans that it had not ended."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..semconv import ERROR_TYPE, TRACEMIND_INTERRUPTED
from .otlp_request import Item
from .otlp_spans import interrupted_item
from .process_directory import ProcessDirectory, orphaned
from .segments import SUFFIX, Entry, Segment
from .started_spans import PREFIX, read_started, span_id_of

log = logging.getLogger(__name__)

_MARKS = {TRACEMIND_INTERRUPTED: True, ERROR_TYPE: "interrupted"}
_REASON = "the process ended before this did"

_UNFINISHED = "interrupted.tmp"
_AFTER_ALL = "z"
"""What the name of that segment begins with, so that it is read last."""


@dataclass(slots=True)
class Estate:
    """What one process left."""

    directory: ProcessDirectory
    """Its directory, which now belongs to this process."""
    segments: list[Segment] = field(default_factory=list[Segment])
    """Its segments with items that are not settled, oldest first."""
    unwritten: list[Item] = field(default_factory=list[Item])
    """The spans that it had not ended, if the disk is full; otherwise they are in the last segment."""


def estates(root: str) -> Iterator[Estate]:
    """What each process left that has ended. No other process reads or deletes it any more."""
    for directory in orphaned(root):
        try:
            estate = _read(directory)
        except OSError as error:
            log.warning("Spool %s of a process that ended cannot be read, and is left there: %s", directory.path, error)
            directory.release()
        else:
            yield estate


def _read(directory: ProcessDirectory) -> Estate:
    estate = Estate(directory)
    started = read_started(directory.path)
    last_ns = max((start.time_ns for start in started.values()), default=0)

    def see(entry: Entry) -> None:
        nonlocal last_ns
        last_ns = max(last_ns, entry.time_ns)
        if started:
            started.pop(span_id_of(entry.payload), None)

    for path in _segments(directory.path):
        segment, made_ns = _loaded(path, see)
        last_ns = max(last_ns, made_ns)
        if segment.is_done:
            segment.delete()
        else:
            estate.segments.append(segment)
    interrupted = [interrupted_item(start.item, last_ns, _MARKS, _REASON) for start in started.values()]
    if interrupted:
        _write(estate, interrupted, last_ns)
    for name in os.listdir(directory.path):
        if name.startswith(PREFIX):
            os.unlink(os.path.join(directory.path, name))
    kept = sum(segment.kept for segment in estate.segments) + len(estate.unwritten)
    if kept:
        log.info(
            "Spool %s: a process ended before all was delivered. %d spans are sent now, of which it had not ended %d",
            directory.path,
            kept,
            len(interrupted),
        )
    return estate


def _segments(directory: str) -> list[str]:
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.endswith(SUFFIX)]


def _loaded(path: str, see: Callable[[Entry], object]) -> tuple[Segment, int]:
    """A segment, and when it was made. What of it is damaged is lost, and said."""
    try:
        segment, damages, made_ns = Segment.load(path, see)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        log.warning("Segment %s of a spool cannot be read, and is lost: %s", path, error)
        return Segment(path, is_sealed=True), 0
    if damages:
        log.warning(
            "Segment %s of a spool is damaged: %d bytes from %d on cannot be read and are lost; %d spans are intact",
            path,
            sum(damage.end - damage.start for damage in damages),
            damages[0].start,
            segment.kept,
        )
    return segment, made_ns


def _write(estate: Estate, interrupted: list[Item], last_ns: int) -> None:
    """Write spans that the process had not ended to a segment of their own, before their starts are deleted.

    If this process is killed between the two, the next one finds both, and so that they have ended.
    """
    directory = estate.directory.path
    unfinished = os.path.join(directory, _UNFINISHED)
    path = os.path.join(directory, f"{_AFTER_ALL}{len(_segments(directory)):08d}{SUFFIX}")
    try:
        if os.path.lexists(unfinished):
            os.unlink(unfinished)  # of a process that was killed here
        segment = Segment.create(unfinished)
        for item in interrupted:
            segment.append(item, last_ns)
        segment.seal()
        os.rename(unfinished, path)
    except OSError:
        estate.unwritten = interrupted
    else:
        segment.path = path
        estate.segments.append(segment)
