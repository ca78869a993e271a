"""One DuckDB file: many readers, one writer, errors in our words.

Nothing else opens the file: a plain `open()` of it in this process would drop
the lock that keeps other processes out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from mcp_memory.store.duckdb.faults import translate
from mcp_memory.store.duckdb.files import (
    check_writable,
    identity,
    keep_private,
    prepare_folder,
    sync_folder,
)
from mcp_memory.store.duckdb.gate import Gate
from mcp_memory.store.duckdb.migrations import migrate
from mcp_memory.store.duckdb.statements import Statements
from mcp_memory.store.duckdb.transaction import Row, Transaction
from mcp_memory.values.errors import DatabaseCorrupt, StorageFault

CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    # No extension is ever fetched: only the package registries can be relied on.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # A statement of one row is done before a second thread has heard of it.
    "threads": 1,
    "memory_limit": "1GB",
}
"""With what the driver opens a database, whoever does it."""

_PROBE_SECONDS: Final = 5.0
"""How long a probe waits for a writer, by judgement: single writes take milliseconds."""

_READS_END_SECONDS: Final = 2.0
"""So long a swap of the file waits for the reads that go on."""


class Database:
    """A database file of the present schema, open for this process alone.

    Safe to use from several threads: each reads through a cursor of its own,
    and writers take turns.
    """

    def __init__(self, path: Path | None) -> None:
        """Open `path`, make it if it is missing, and bring it to the present schema.

        Args:
            path: The file; None for a database in memory.

        Raises:
            StorageFault: It is locked, corrupt, of a newer version or can't be written.
        """
        self.path = ":memory:" if path is None else str(path)
        self.generation = 0
        """Counts up whenever the file had to be opened again; caches of before are void."""
        self.on_reopened: Callable[[], None] | None = None
        """Called after that: the file may be another one, such as a backup that was restored."""
        self.commits = 0
        """Counts up with every commit; what stayed the same has not changed meanwhile."""
        self.on_commit: Callable[[], None] | None = None
        """Called after every commit, with the writer's place held: it must be quick."""
        self.used_at = time.monotonic()
        """When somebody last read or wrote, by the clock of `time.monotonic`."""
        self._write = threading.RLock()
        self._gate = Gate()
        self._apart: duckdb.DuckDBPyConnection | None = None
        self._local = threading.local()
        self._cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self._epoch = 0
        """Counts up with every opening: cursors of before are closed."""
        self._broken = False
        self._closed = False
        self._statements = Statements()
        self._opened: tuple[int, int] | None = None
        """Which file was opened; by the path it may be another one later."""
        if path is not None:
            prepare_folder(path)
        self._connection = self._connect()
        self.clear_copy()  # Whoever has made it is gone: the file is ours alone.

    @property
    def copy_folder(self) -> Path:
        """The folder beside the file in which a compacted copy is made; private, on its disk."""
        return Path(f"{os.path.realpath(self.path)}.compact")

    def clear_copy(self) -> None:
        """Delete a copy that was not put to use, as after a crash."""
        if self.path != ":memory:":
            shutil.rmtree(self.copy_folder, ignore_errors=True)

    def touch(self) -> None:
        """Note that somebody uses the database, be it through what is in memory."""
        self.used_at = time.monotonic()

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        """Let this thread read without its reads counting as use, for status and metrics."""
        before = getattr(self._local, "observes", False)
        self._local.observes = True
        try:
            yield
        finally:
            self._local.observes = before

    def probe(self) -> None:
        """Check that the database can be written, without a commit and without counting as use.

        A row is written in a transaction that is rolled back, so nothing reaches the disk.
        What only the disk knows is asked of the file system: rights, and space for the log.

        Raises:
            StorageFault: It can't be written.
        """
        if not self._write.acquire(timeout=_PROBE_SECONDS):
            raise StorageFault(
                f"a write to {self.path} has lasted more than {_PROBE_SECONDS:g} s",
                hint="Wait until it is done",
            )
        try:
            self._revive()
            self._connection.begin()
            try:
                self._connection.execute(
                    "INSERT INTO settings (key, value) VALUES ('probe', '')"
                    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
                )
            finally:
                self._roll_back(self._connection)
        except duckdb.Error as error:
            raise self._fault(error) from error
        finally:
            self._write.release()
        if self.path != ":memory:":
            check_writable(Path(self.path))

    def read(self, sql: str, *values: object) -> list[Row]:
        """Return the rows of a query, of the state that was last committed.

        Raises:
            StorageFault: The driver could not read it.
        """
        with self._reading() as cursor:
            return cursor.execute(self._local.statements.parsed(cursor, sql), values).fetchall()

    def read_columns(self, sql: str, *values: object) -> dict[str, NDArray[Any]]:
        """Return the columns of a query by name, for results of many rows.

        Raises:
            StorageFault: The driver could not read it.
        """
        with self._reading() as cursor:
            columns: dict[str, NDArray[Any]] = cursor.execute(sql, values).fetchnumpy()
        return {name: np.asarray(column) for name, column in columns.items()}

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Hold the writer's place; commit at the end, or roll back on any exception.

        What is left without an exception is durable.

        Raises:
            StorageFault: The driver could not write; nothing of it was kept.
        """
        with self._write:
            if self._revive():
                # What the caller has prepared was read from the old one.
                raise StorageFault(
                    f"the database {self.path} was replaced while it was open: nothing was stored",
                    hint="Repeat the call; from now on the new one is used",
                )
            connection = self._connection
            try:
                connection.begin()
                transaction = Transaction(connection, self._statements)
                yield transaction
                connection.commit()
                self._keep_private()
                transaction.committed()
                self._committed()
            except duckdb.Error as error:
                self._roll_back(connection)
                raise self._fault(error) from error
            except BaseException:
                self._roll_back(connection)
                raise

    def checkpoint(self, *, wait: bool = True) -> bool:
        """Move everything from the write-ahead log into the file; others wait meanwhile.

        Args:
            wait: Whether to wait for a writer; without it nothing is done while there is one.

        Returns:
            Whether it was done.

        Raises:
            StorageFault: The driver could not write; all that was committed is kept.
        """
        if not self._write.acquire(blocking=wait):
            return False
        try:
            self._revive()
            self._connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            raise self._fault(error) from error
        finally:
            self._write.release()
        return True

    def held(self) -> contextlib.AbstractContextManager[bool]:
        """Keep writers waiting, for a `with`; reads go on."""
        return self._write

    @contextlib.contextmanager
    def apart(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a connection for long work that holds nobody up; a commit of others cuts it short.

        Raises:
            StorageFault: The driver could not do what it was asked.
            InterruptedError: Somebody has written meanwhile, or `cut_short` was called.
        """
        with self._write:
            self._revive()
            connection = self._connection.cursor()
            self._cursors.add(connection)
            self._apart = connection
        try:
            yield connection
        except duckdb.InterruptException as error:
            raise InterruptedError("cut short") from error
        except duckdb.Error as error:
            raise self._fault(error) from error
        finally:
            with self._write:
                self._apart = None
                with contextlib.suppress(duckdb.Error):
                    connection.close()

    def cut_short(self) -> None:
        """End the long work that goes on apart, if there is any."""
        apart = self._apart
        if apart is not None:
            with contextlib.suppress(duckdb.Error):  # It may have ended by itself.
                apart.interrupt()

    def swap(self, other: Path, commits: int, on_step: Callable[[str], None]) -> bool:
        """Put a copy of the file in its place; others wait meanwhile, and no cache becomes void.

        Args:
            other: The copy, written through, on the same disk.
            commits: What `commits` was when the copy was begun.
            on_step: Told `closed` and `renamed`, between which the file is replaced.

        Returns:
            Whether it was done; not if somebody has written since, or still reads.

        Raises:
            StorageFault: It can't be replaced; what is there is used on.
        """
        with self._write:
            if self._revive() or self.commits != commits or not self._gate.shut(_READS_END_SECONDS):
                return False
            try:
                self._close_all()
                try:
                    self._check_closed()
                    on_step("closed")
                    os.replace(other, os.path.realpath(self.path))
                    on_step("renamed")
                    sync_folder(Path(self.path).parent)
                finally:
                    self._broken = True  # Until it is open again.
                    self._connection = self._connect()
                    self._broken = False
            except OSError as error:
                raise StorageFault(
                    f"the file {self.path} can't be replaced: {error.strerror}",
                    hint="Nothing was changed",
                ) from error
            finally:
                self._gate.open()
        return True

    def close(self) -> None:
        """Close the file; what was committed is in it. Closing again does nothing."""
        with self._write:
            if not self._closed:
                self._closed = True
                self._connection.close()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        try:
            connection = duckdb.connect(self.path, config=CONFIG)
        except duckdb.Error as error:
            raise translate(error, self.path) from error
        try:
            connection.execute("SET TimeZone = 'UTC'")
            if migrate(connection, self.path):
                connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            connection.close()
            raise translate(error, self.path) from error
        except BaseException:
            connection.close()
            raise
        # Only writes go through it; see Transaction.
        connection.execute("PRAGMA disable_optimizer")
        self._statements = Statements()
        self._epoch += 1
        self._keep_private()
        self._opened = identity(self.path)
        return connection

    def _keep_private(self) -> None:
        # A commit may have made the log.
        if self.path != ":memory:":
            keep_private(self.path, f"{self.path}.wal")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give the thread's cursor, and keep the file open as long as it is used."""
        if not getattr(self._local, "observes", False):
            self.touch()
        while True:
            cursor = self._cursor()
            self._gate.enter()
            # The file may have been swapped, and the cursor closed, before the gate.
            if self._local.held[0] == self._epoch or self._closed:
                break
            self._gate.leave()
        try:
            yield cursor
        except duckdb.Error as error:
            raise self._fault(error) from error
        finally:
            self._gate.leave()

    def _committed(self) -> None:
        self.commits += 1
        self.touch()
        self.cut_short()
        if self.on_commit is not None:
            self.on_commit()

    def _close_all(self) -> None:
        # While one cursor is left, the driver keeps the file as it was open, and its lock.
        for connection in (*self._cursors, self._connection):
            with contextlib.suppress(duckdb.Error):
                connection.close()

    def _check_closed(self) -> None:
        """Check that the driver has left the file, with nothing in its log.

        Raises:
            StorageFault: It has not: to replace the file would lose what is written next.
        """
        try:
            # Refused as long as it is open in this process, because it asks for something else.
            duckdb.connect(self.path, read_only=True, config=CONFIG).close()
        except duckdb.Error as error:
            raise self._fault(error) from error
        for path in (self.path, os.path.realpath(self.path)):
            if os.path.exists(f"{path}.wal"):
                raise StorageFault(
                    f"the log {path}.wal is still there after closing", hint="Nothing was changed"
                )

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if self._broken:
            with self._write:
                self._revive()
        held: tuple[int, duckdb.DuckDBPyConnection] | None = getattr(self._local, "held", None)
        if held is None or held[0] != self._epoch:
            if self._closed:
                raise StorageFault("the database is closed", hint="Start the server again")
            with self._write:
                held = (self._epoch, self._connection.cursor())
                self._cursors.add(held[1])
            self._local.held = held
            self._local.statements = Statements()
        return held[1]

    def _roll_back(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            connection.rollback()
        except duckdb.TransactionException:
            pass  # The driver has rolled back by itself.
        except duckdb.Error:
            self._broken = True

    def _fault(self, error: duckdb.Error) -> StorageFault:
        fault = translate(error, self.path)
        # After a fatal error every statement fails until the file is opened again;
        # all that was acknowledged is there then. A damaged file may have been replaced.
        fatal = isinstance(error, duckdb.FatalException | duckdb.InternalException)
        if fatal or isinstance(fault, DatabaseCorrupt):
            self._broken = True
        return fault if isinstance(fault, StorageFault) else StorageFault(str(fault))

    def _revive(self) -> bool:
        """Open the file again if it has to be; return whether it is another one now."""
        if self._closed:
            raise StorageFault("the database is closed", hint="Start the server again")
        if self.path == ":memory:":
            return False
        present = identity(self.path)
        replaced = present != self._opened
        if self._broken or replaced:
            self._broken = True
            if present is None:
                # A new one in its place would be in the way of whoever is restoring a backup.
                raise StorageFault(
                    f"the database {self.path} was moved away or deleted while it was open:"
                    " nothing was stored",
                    hint="Put it back, or close all clients to begin with an empty one",
                )
            with contextlib.suppress(duckdb.Error):
                # The log holds what was acknowledged; by now it may be another file's.
                self._connection.execute("PRAGMA disable_checkpoint_on_shutdown")
            self._gate.shut(_READS_END_SECONDS)
            try:
                self._close_all()
                self._connection = self._connect()
            finally:
                self._gate.open()
            self._broken = False
            self.generation += 1
            self.commits += 1
            if self.on_reopened is not None:
                self.on_reopened()
        return replaced


__all__ = ["CONFIG", "Database", "Row", "Transaction"]
