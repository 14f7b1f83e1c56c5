"""A shared state in one SQLite file, for the processes of one host."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .state_port import Account, Answer, Order, Settle, StateAwayError, Sums, minus, plus, room_is_lacking

log = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS spent (
    name TEXT, key TEXT, window_s INTEGER, number INTEGER, ends_at REAL,
    nano_usd INTEGER, tokens INTEGER, llm_calls INTEGER,
    PRIMARY KEY (name, key, window_s, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held (
    name TEXT, key TEXT, window_s INTEGER, number INTEGER, owner TEXT, expires_at REAL,
    nano_usd INTEGER, tokens INTEGER, llm_calls INTEGER,
    PRIMARY KEY (name, key, window_s, number, owner)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held_by_owner ON held (owner);
CREATE INDEX IF NOT EXISTS spent_by_end ON spent (ends_at);
"""
_HERE = "name = ? AND key = ? AND window_s = ? AND number = ?"
_SUMS = "COALESCE(SUM(nano_usd), 0), COALESCE(SUM(tokens), 0), COALESCE(SUM(llm_calls), 0)"
_ADDED = """nano_usd = nano_usd + excluded.nano_usd, tokens = tokens + excluded.tokens,
    llm_calls = llm_calls + excluded.llm_calls"""

# No value is ever part of a statement.
_SPENT = f"SELECT {_SUMS} FROM spent WHERE {_HERE}"  # noqa: S608
_HELD = f"SELECT {_SUMS} FROM held WHERE {_HERE}"  # noqa: S608
_EXPIRED = f"SELECT {_SUMS}, COUNT(*) FROM held WHERE {_HERE} AND expires_at < ?"  # noqa: S608
_DROP_EXPIRED = f"DELETE FROM held WHERE {_HERE} AND expires_at < ?"  # noqa: S608
_OWN = f"SELECT nano_usd, tokens, llm_calls FROM held WHERE {_HERE} AND owner = ?"  # noqa: S608
_SET_OWN = f"UPDATE held SET nano_usd = ?, tokens = ?, llm_calls = ? WHERE {_HERE} AND owner = ?"  # noqa: S608
_DROP_OWN = f"DELETE FROM held WHERE {_HERE} AND owner = ?"  # noqa: S608
_HOLD = f"""INSERT INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, {_ADDED}"""  # noqa: S608
_SPEND = f"INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET {_ADDED}"  # noqa: S608
_ACCOUNTS = """SELECT COUNT(*) FROM (
    SELECT name, key, window_s FROM spent UNION SELECT name, key, window_s FROM held)"""

_LOG_BYTES = 16 * 1024**2
"""The size of the log above which it is moved into the file."""
_LOOK_EVERY = 64
"""Commits between two looks at the size of the log."""
_KEPT_S = 86_400.0
"""How long a window is kept after its end, for calls that began in it."""
_RETRY_S = 0.000_3
"""The wait for another process's transaction, which takes less than that; SQLite's own wait begins at 1 ms."""

_Place = tuple[str, str, int, int]


class SqliteState:
    """Sums in a SQLite file in WAL mode, which is made with mode 0600.

    Args:
        path: the file.
        timeout_s: seconds after which a file that another process has locked counts as away.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._commits = 0
        self._checkpoint: threading.Thread | None = None
        self._file: tuple[int, int] | None = None
        """Which file is open; `None` where opening it failed."""
        self._is_closed_for_fork = False
        self._open()

    def _open(self) -> None:
        try:
            path = self._path
            if _identity(path) is None:  # closing one that is in use would end this process's locks on it
                os.close(os.open(Path(path), os.O_RDWR | os.O_CREAT, 0o600))  # its -wal and -shm get the same mode
            self._db = sqlite3.connect(path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False)
            self._file = _identity(path)
            self._db.execute("PRAGMA page_size = 1024")  # of a new file; each commit writes whole pages to the log
            self._db.execute("PRAGMA journal_mode = WAL")
            # Without a sync for each commit: a crash of the host may lose the last commits, never the file.
            self._db.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._db.execute(statement)
            self._db.execute("PRAGMA busy_timeout = 0")
            self._db.execute("PRAGMA wal_autocheckpoint = 0")
        except (OSError, sqlite3.Error) as error:
            self._file = None
            raise _away(error) from error

    def apply(self, owner: str, orders: Sequence[Order], lease_s: float) -> list[Answer]:
        """Carry out orders in one transaction."""
        try:
            with self._transaction():
                now = time.time()
                return [self._carry_out(owner, order, now, lease_s) for order in orders]
        except (OSError, sqlite3.Error) as error:
            raise _away(error) from error

    def renew(self, owner: str, lease_s: float) -> None:
        """Extend the lease of an owner, and drop the windows that nobody needs any more."""
        now = time.time()
        try:
            with self._transaction():
                self._db.execute("UPDATE held SET expires_at = ? WHERE owner = ?", (now + lease_s, owner))
                self._db.execute("DELETE FROM spent WHERE ends_at < ?", (now - _KEPT_S,))
        except (OSError, sqlite3.Error) as error:
            raise _away(error) from error

    def accounts(self) -> int:
        """How many accounts have sums."""
        try:
            return int(self._db.execute(_ACCOUNTS).fetchone()[0])
        except (OSError, sqlite3.Error) as error:
            raise _away(error) from error

    def before_fork(self) -> None:
        """Close the file, or a child would take the locks on it, which no child inherits, for its own.

        When its parent ends, SQLite would then delete a log that the child still writes.
        """
        self.close()
        self._is_closed_for_fork = True

    def close(self) -> None:
        """Close the file."""
        if self._checkpoint is not None:
            self._checkpoint.join()
        self._db.close()

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._begin()
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk ends it
                self._db.execute("ROLLBACK")
            raise
        self._commits += 1
        if self._commits % _LOOK_EVERY == 0 and self._log_is_long():
            self._checkpoint = threading.Thread(target=self._move_log, name="tracemind-checkpoint", daemon=True)
            self._checkpoint.start()

    def _log_is_long(self) -> bool:
        if self._checkpoint is not None and self._checkpoint.is_alive():
            return False
        try:
            return os.stat(f"{self._path}-wal").st_size > _LOG_BYTES
        except OSError:
            return False

    def _move_log(self) -> None:
        """Move the log into the file, in a thread of its own: its sync takes milliseconds.

        The first step stops no transaction, but new ones follow it. The second moves these few, while they wait, and
        empties the log, which without it would grow as long as any process writes.
        """
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=self._timeout_s)) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            log.debug("the log of %s was not moved: %s", self._path, error)

    def _begin(self) -> None:
        """Begin to write; waits for the other processes' transactions.

        A file that was deleted could be written for ever, beside the new one that other processes use.
        """
        is_another = self._file is None or _identity(self._path) != self._file
        if is_another or self._is_closed_for_fork:
            self.close()
            self._is_closed_for_fork = False
            self._open()
        if is_another:
            raise StateAwayError("its file was deleted or replaced; the sums are those of the new one")
        until = time.monotonic() + self._timeout_s
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                if time.monotonic() >= until:
                    raise
                time.sleep(_RETRY_S)

    def _carry_out(self, owner: str, order: Order, now: float, lease_s: float) -> Answer:
        window = _window_of(order, now)
        account = order.account
        place = (account.name, account.key, account.window_s, window)
        self._expire(place, account, now)
        if isinstance(order, Settle):
            if order.if_granted is None:  # a transaction that failed granted nothing
                self._settle(owner, order, place)
            return Answer(window, None, self._spent(place), self._held(place), _ends_in_s(place, now))
        spent, held = self._spent(place), self._held(place)
        lacking = room_is_lacking(order, plus(spent, held))
        if lacking is None:
            self._db.execute(_HOLD, (*place, owner, now + lease_s, *order.wanted))
        return Answer(window, lacking, spent, held, _ends_in_s(place, now))

    def _expire(self, place: _Place, account: Account, now: float) -> None:
        """Count as spent what owners hold whose leases have expired."""
        *sums, count = self._db.execute(_EXPIRED, (*place, now)).fetchone()
        if count:
            self._spend(place, account, Sums(*sums))
            self._db.execute(_DROP_EXPIRED, (*place, now))

    def _settle(self, owner: str, order: Settle, place: _Place) -> None:
        """Where the lease had expired, what was held is spent already: only the difference is counted then.

        Nothing is subtracted that the file does not have, because it may be a new one in place of one that was lost.
        """
        row = self._db.execute(_OWN, (*place, owner)).fetchone()
        still_held = Sums(*row) if row else Sums()
        freed = Sums(*map(min, still_held, order.held))
        left = minus(still_held, freed)
        if any(left):
            self._db.execute(_SET_OWN, (*left, *place, owner))
        elif row:
            self._db.execute(_DROP_OWN, (*place, owner))
        spent_already = Sums(*map(min, minus(order.held, freed), self._spent(place)))
        self._spend(place, order.account, minus(order.used, spent_already))

    def _spend(self, place: _Place, account: Account, amount: Sums) -> None:
        if any(amount):
            ends_at = (place[-1] + 1) * account.window_s if account.window_s else None
            self._db.execute(_SPEND, (*place, ends_at, *amount))

    def _spent(self, place: _Place) -> Sums:
        return Sums(*self._db.execute(_SPENT, place).fetchone())

    def _held(self, place: _Place) -> Sums:
        return Sums(*self._db.execute(_HELD, place).fetchone())


_ADVICE = {
    "not a database": "move the file away; a new one starts at zero",
    "malformed": "move the file away; a new one starts at zero",
    "readonly": "let this user write the file and its directory",
    "unable to open": "let this user write the file and its directory",
    "Permission denied": "let this user write the file and its directory",
    "is full": "make room on its disk",
    "No space": "make room on its disk",
    "locked": "another process holds it for long",
}
"""What to do, by a part of SQLite's or the system's message."""


def _away(error: Exception) -> StateAwayError:
    what = f"{type(error).__name__}: {error}"
    advice = next((f"; {advice}" for part, advice in _ADVICE.items() if part in what), "")
    return StateAwayError(what + advice)


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Which file is at a path; `None` where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _window_of(order: Order, now: float) -> int:
    if isinstance(order, Settle) and order.window is not None:
        return order.window
    seconds = order.account.window_s
    return int(now // seconds) if seconds else 0


def _ends_in_s(place: _Place, now: float) -> float | None:
    _, _, seconds, window = place
    return max((window + 1) * seconds - now, 0.0) if seconds else None
