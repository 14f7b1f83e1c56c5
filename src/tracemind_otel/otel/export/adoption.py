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
from .segment_records import Entry
from .segments import SUFFIX, Segment, segment_name
from .started_spans import PREFIX, read_started, span_id_of

log = logging.getLogger(__name__)

_MARKS = {TRACEMIND_INTERRUPTED: True, ERROR_TYPE: "interrupted"}
_REASON = "the process ended before this did"

_UNFINISHED = "interrupted.tmp"


@dataclass(slots=True)
class Estate:
    """What one process left."""

    directory: ProcessDirectory
    """Its directory, which now belongs to this process."""
    segments: list[Segment] = field(default_factory=list[Segment])
    """Its segments with items that are not settled, oldest first."""
    unwritten: list[Item] = field(default_factory=list[Item])
    """The spans that it had not ended, if the disk is full; otherwise they are in the last segment."""

    def move_to(self, directory: ProcessDirectory) -> None:
        """Move the segments to a directory of this process, and delete their own."""
        moved = list[Segment]()
        try:
            for segment in self.segments:
                segment.move(directory.path)
                moved.append(segment)
        except OSError as error:
            log.warning("Spool %s of a process that ended cannot be moved, and waits: %s", self.directory.path, error)
            self.segments = moved
            self.directory.release()
        else:
            self.directory.remove()


def estates(root: str) -> Iterator[Estate]:
    """What each process left that has ended. No other process reads or deletes it any more."""
    for directory in orphaned(root):
        try:
            estate = _read(directory)
        except OSError as error:
            log.warning("Spool %s of a process that ended cannot be read, and waits: %s", directory.path, error)
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
        estate.segments.append(segment)
    interrupted = [interrupted_item(start.item, last_ns, _MARKS, _REASON) for start in started.values()]
    _end_started(estate, interrupted, last_ns)
    for segment in [segment for segment in estate.segments if segment.is_done]:
        estate.segments.remove(segment)
        segment.delete()  # not before the starts, since it may have their ends
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


def _end_started(estate: Estate, interrupted: list[Item], last_ns: int) -> None:
    """Write spans that the process had not ended to a segment of their own, and delete their starts.

    If this process is killed between the two, the next one finds both, and the ends tell it to drop the starts.
    """
    directory = estate.directory.path
    unfinished = os.path.join(directory, _UNFINISHED)
    if os.path.lexists(unfinished):
        os.unlink(unfinished)  # of a process that was killed here
    if interrupted:
        try:
            segment = Segment.create(unfinished)
            for item in interrupted:
                segment.append(item, last_ns)
            segment.seal()
            segment.move(directory, segment_name())
            estate.segments.append(segment)
        except OSError:
            estate.unwritten = interrupted
    for name in os.listdir(directory):
        if name.startswith(PREFIX):
            os.unlink(os.path.join(directory, name))
