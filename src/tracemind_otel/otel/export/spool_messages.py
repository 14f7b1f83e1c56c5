"""What a disk spool logs about its disk."""

from __future__ import annotations

import logging
from collections import deque

log = logging.getLogger(__name__)


class SpoolMessages:
    """Messages that wait until the spool holds no lock, because a handler of the log may itself append to it.

    Args:
        directory: the directory of the spool.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._said = set[str]()
        self.waiting = deque[tuple[int, str, tuple[object, ...]]]()
        """The messages that are not logged yet."""

    def log(self) -> None:
        """Log what waits."""
        while self.waiting:
            level, message, values = self.waiting.popleft()
            log.log(level, message, *values)

    def not_writable(self, error: OSError) -> None:
        self._say_once(
            "Spool %s cannot write to its disk (%s): spans wait in memory until it can, and end with this process. "
            "Make room or make the directory writable, or name another by configure(spool=...) or TRACEMIND_SPOOL_DIR",
            error,
        )

    def writable_again(self) -> None:
        self._say(logging.INFO, "Spool %s writes to its disk again", self._directory)

    def not_noted(self, error: OSError) -> None:
        self._say_once(
            "Spool %s cannot note what was delivered (%s): if this process is killed, the next one sends it again. "
            "Make the directory writable",
            error,
        )

    def not_readable(self, error: OSError) -> None:
        self._say_once("Spool %s cannot be read now, and is tried again: %s", error)

    def starts_not_kept(self, reason: str) -> None:
        self._say_once(
            "Spool %s does not keep all starts of spans, because %s. If this process is killed, those are missing",
            reason,
        )

    def damaged(self, segment: str, byte_size: int, between: tuple[int, int]) -> None:
        self._say(
            logging.WARNING,
            "Segment %s of a spool is damaged: %d of its bytes %d to %d cannot be read and are lost",
            *(segment, byte_size, *between),
        )

    def _say(self, level: int, message: str, *values: object) -> None:
        self.waiting.append((level, message, values))

    def _say_once(self, message: str, value: object) -> None:
        if message not in self._said:
            self._said.add(message)
            self._say(logging.WARNING, message, self._directory, value)
