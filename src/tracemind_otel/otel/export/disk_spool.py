"""The spool that keeps encoded items in files, so that they outlive this process.

An item is in the page cache before `append` returns, which `kill -9` does not touch; with `fsync` it is on the disk.
What was delivered is written down when it is settled. A process that is killed between the receiver's answer and that
leaves the last batch to be sent twice, under the same span ids.
"""

from __future__ import annotations

import os
import time

from .adoption import Estate, estates
from .batches import Batch
from .intake import Intake
from .otlp_request import Item
from .process_directory import ProcessDirectory
from .segments import Segment, segment_name
from .spool import MemorySpool
from .spool_messages import SpoolMessages
from .started_spans import StartedSpans, span_id_of

DEFAULT_DISK = 1024 * 1024 * 1024
"""Bytes of a disk spool: an outage of 50 minutes at 300 spans a second."""

SEGMENT_BYTES = 4 * 1024 * 1024
"""Bytes of a segment. What a damaged file loses, and what a full spool drops at once, is one segment at most."""

RETRY_S = 5.0
"""Seconds until a disk that failed is tried again."""

_ADOPTION_S = 60.0
"""Seconds between two looks for directories of processes that have ended."""

_MAX_STARTED = 64 * 1024 * 1024
"""Bytes of the starts of spans, at most: some 30,000 open spans."""


class DiskSpool:
    """A spool in files, one directory for each process.

    When it starts, and then once a minute, it adopts what ended processes left in the same directory. While the disk is
    full or read-only, items wait in memory.

    Args:
        directory: where the directories of the processes are; all of them send to the same receiver.
        max_bytes: bytes of what waits at most, with what was adopted.
        fsync: whether an item is on the disk, not only in the page cache, before `append` returns. This blocks.
    """

    def __init__(self, directory: str, max_bytes: int = DEFAULT_DISK, *, fsync: bool = False) -> None:
        self.directory = os.path.abspath(directory)
        self._max_bytes = max_bytes
        self._max_segment = min(SEGMENT_BYTES, max(max_bytes // 8, 1))
        self._fsync = fsync
        self._messages = SpoolMessages(self.directory)
        self._begin()
        with self._intake.held():
            try:
                self._open()
            except OSError as error:
                self._turn_to_memory(error)
        self._messages.log()

    def _begin(self) -> None:
        self._intake = Intake(self._admit)
        self._memory = MemorySpool()
        self._own: ProcessDirectory | None = None
        self._started: StartedSpans | None = None
        self._active: Segment | None = None
        self._segments = list[Segment]()
        self._taken: dict[Batch, tuple[Segment, tuple[int, int]]] = {}
        self._byte_size = 0
        self._kept = 0
        self._dropped = 0
        self._failed_at: float | None = None
        self._adopts_at = 0.0
        self._is_closed = False
        self._messages.waiting.clear()

    def begin_anew(self) -> None:
        """Begin empty in a forked child; it opens a directory of its own for its first item."""
        for segment in self._segments:
            segment.close()
        self._close_started()
        self._begin()

    @property
    def waiting(self) -> int:
        return self._kept + self._memory.waiting

    @property
    def lasting(self) -> int:
        return self._kept

    @property
    def dropped(self) -> int:
        return self._dropped + self._memory.dropped

    # --- Appending ---

    def append(self, item: Item) -> None:
        self._intake.put((None, item))
        if self._messages.waiting:
            self._messages.log()

    def append_start(self, span_id: bytes, item: Item) -> None:
        """Keep the start of a span until the span itself is appended; otherwise the process that adopts it ends it.

        Args:
            span_id: the id of the span, 8 bytes.
            item: the span as it started.
        """
        self._intake.put((span_id, item))
        if self._messages.waiting:
            self._messages.log()

    def _admit(self, arrived: tuple[bytes | None, Item]) -> None:
        span_id, item = arrived
        if self._failed_at is None or time.monotonic() - self._failed_at >= RETRY_S:
            try:
                if span_id is None:
                    self._write(item)
                else:
                    self._write_start(span_id, item)
                self._return_to_disk()
                return
            except OSError as error:
                self._turn_to_memory(error)
        if span_id is None:
            self._memory.append(item)

    def _write(self, item: Item) -> None:
        if len(item.record) > self._max_bytes:
            self._dropped += item.count
            return
        active = self._active
        if active is None or active.size >= self._max_segment or active.is_full:
            active = self._next_segment()
        try:
            self._byte_size += active.append(item, time.time_ns(), fsync=self._fsync)
        except BaseException:
            self._active = None
            raise
        self._kept += item.count
        if self._started:
            self._end_start(item)
        if self._byte_size > self._max_bytes:
            self._drop_oldest()

    def _next_segment(self) -> Segment:
        self._seal_active()
        own = self._open()
        self._active = segment = Segment.create(os.path.join(own.path, segment_name()))
        if self._fsync:
            own.fsync()
        self._segments.append(segment)
        self._byte_size += segment.size
        return segment

    def _seal_active(self) -> None:
        if self._active is not None:
            self._active.seal()
            self._active = None

    def _open(self) -> ProcessDirectory:
        return self._own or self._settle_in(ProcessDirectory.create(self.directory))

    def _settle_in(self, directory: ProcessDirectory) -> ProcessDirectory:
        self._own = directory
        self._started = StartedSpans(directory.path, min(_MAX_STARTED, self._max_bytes // 4))
        return directory

    def _close_started(self) -> None:
        if self._started is not None:
            self._started.close()
            self._started = None

    def _write_start(self, span_id: bytes, item: Item) -> None:
        self._open()
        reason = "" if self._started is None else self._started.add(span_id, item, time.time_ns())
        if reason:
            self._messages.starts_not_kept(reason)

    def _end_start(self, item: Item) -> None:
        """Forget the start of a span that ends, after its end is written."""
        if self._started is not None:
            try:
                self._started.end(span_id_of(item.record))
            except OSError as error:
                self._messages.not_noted(error)

    def _drop_oldest(self) -> None:
        """Delete the oldest segments of which nothing is being sent, until the files are small enough."""
        while self._byte_size > self._max_bytes:
            oldest = next((segment for segment in self._segments if not segment.taken), None)
            if oldest is None:
                return
            self._kept -= oldest.kept
            self._dropped += oldest.kept
            self._forget(oldest)
            self._delete(oldest)

    def _forget(self, segment: Segment) -> None:
        if segment is self._active:
            self._active = None
        self._segments.remove(segment)
        self._byte_size -= segment.size

    def _delete(self, segment: Segment) -> None:
        try:
            segment.delete()
        except FileNotFoundError:
            pass
        except OSError as error:
            self._messages.not_noted(error)

    # --- Sending ---

    def take(self, max_bytes: int, max_items: int) -> Batch | None:
        self._delete_done()
        # What waits in memory first, because it ends with the process.
        batch = self._memory.take(max_bytes, max_items) or self._take(max_bytes, max_items)
        self._messages.log()
        return batch

    def _take(self, max_bytes: int, max_items: int) -> Batch | None:
        while True:
            with self._intake.held():
                segment = next((segment for segment in self._segments if segment.waiting), None)
                if segment is None:
                    return None
                wanted = segment.begin_taking()
            try:
                reading = segment.read(*wanted, max_bytes, max_items)  # meanwhile others append
            except OSError as error:
                with self._intake.held():
                    segment.stop_taking(wanted)
                self._messages.not_readable(error)
                return None
            with self._intake.held():
                taken = segment.end_taking(wanted, reading)
                batch = reading.batch
                if batch is not None:
                    self._taken[batch] = (segment, taken)
                if reading.damaged and segment is self._active:  # somebody writes to it, or has deleted it
                    self._seal_active()
            if reading.damaged:
                self._messages.damaged(segment.path, reading.damaged, taken)
            if batch is not None:
                return batch
            self._tidy(segment)

    def settle(self, batch: Batch) -> None:
        if batch not in self._taken:
            self._settle_in_memory(batch)
            return
        segment, taken = self._taken.pop(batch)
        with self._intake.held():
            segment.settle(taken, batch.count)
            self._kept -= batch.count
            if not segment.is_done:
                try:
                    segment.write_position(fsync=self._fsync)
                except OSError as error:
                    self._messages.not_noted(error)
        self._tidy(segment)

    def _settle_in_memory(self, batch: Batch) -> None:
        with self._intake.held():
            self._memory.settle(batch)
            if self._started:
                for item in batch.items:
                    self._end_start(item)

    def give_back(self, batch: Batch) -> None:
        if batch not in self._taken:
            self._memory.give_back(batch)
            return
        segment, taken = self._taken.pop(batch)
        with self._intake.held():
            segment.give_back(taken)

    def _tidy(self, segment: Segment) -> None:
        """Count what a segment has lost by damage, and delete it if nothing of it is left."""
        with self._intake.held():
            if segment.waiting or segment.taken:
                return
            self._kept -= segment.kept
            self._dropped += segment.kept
            segment.kept = 0
            if not segment.is_done:
                return
            self._forget(segment)
        self._delete(segment)
        self._messages.log()

    def _delete_done(self) -> None:
        """Delete segments that were settled before they were full."""
        with self._intake.held():
            done = [segment for segment in self._segments if segment.is_done]
            for segment in done:
                self._forget(segment)
        for segment in done:
            self._delete(segment)

    def adopt(self) -> None:
        if self._is_closed or time.monotonic() < self._adopts_at:
            return
        self._adopts_at = time.monotonic() + _ADOPTION_S
        place = 0
        for estate in estates(self.directory):
            with self._intake.held():
                own = self._inhabit(estate)
            if estate.directory is not own:
                estate.move_to(own)
            with self._intake.held():
                self._segments[place:place] = estate.segments
                place += len(estate.segments)
                self._byte_size += sum(segment.size for segment in estate.segments)
                self._kept += sum(segment.kept for segment in estate.segments)
                for item in estate.unwritten:
                    self._memory.append(item)
                self._drop_oldest()
        self._messages.log()

    def _inhabit(self, estate: Estate) -> ProcessDirectory:
        """The directory of this process, or that of the ended one if a full disk has no room for another."""
        try:
            return self._open()
        except OSError:
            return self._settle_in(estate.directory)

    # --- The end ---

    def close(self) -> None:
        """Write what waits in memory if the disk takes it, close all files, and leave what waits to the next process.

        What is appended after that goes to another directory, which the next process takes over too.
        """
        with self._intake.held():
            if self._is_closed:
                return
            self._write_memory()
            self._is_closed = True
            for segment in self._segments:
                segment.close()
            is_empty = not self._started and not self._kept
            self._close_started()
            if self._own is not None and is_empty:
                self._own.remove()
            elif self._own is not None:
                self._own.release()
            self._own = self._active = None
            self._segments, self._byte_size = [], 0  # another process may have them by now
        self._messages.log()

    def _write_memory(self) -> None:
        while (batch := self._memory.take(SEGMENT_BYTES, 1)) is not None:
            try:
                self._write(batch.items[0])
            except OSError as error:
                self._messages.not_writable(error)
                self._memory.give_back(batch)
                return
            self._memory.settle(batch)

    # --- A disk that fails ---

    def _turn_to_memory(self, error: OSError) -> None:
        self._failed_at = time.monotonic()
        self._messages.not_writable(error)
        if self._own is not None and not os.path.isdir(self._own.path):  # somebody has deleted it
            self._own.release()
            self._close_started()
            self._own = None

    def _return_to_disk(self) -> None:
        if self._failed_at is not None:
            self._failed_at = None
            self._messages.writable_again()
