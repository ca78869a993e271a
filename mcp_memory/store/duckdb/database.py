"""One DuckDB file: many readers, one writer, and errors of our own types.

Nothing else opens the file: a plain `open()` of it in this process would drop
the lock that keeps other processes out.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from mcp_memory.store.duckdb.faults import translate
from mcp_memory.store.duckdb.files import (
    address,
    check_writable,
    copy_folder,
    identity,
    keep_private,
    prepare_folder,
)
from mcp_memory.store.duckdb.migrations import migrate
from mcp_memory.store.duckdb.transaction import ParsedStatements, Row, Transaction
from mcp_memory.store.duckdb.witness import Witness
from mcp_memory.values.errors import DatabaseCorrupt, StorageFault

logger = logging.getLogger(__name__)

CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    # No extension is ever fetched: the server must work without a network.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # A statement of one row is done before a second thread could start.
    "threads": 1,
    "memory_limit": "1GB",
}
"""The driver's configuration, wherever a database is opened."""

_READS_END_SECONDS: Final = 2.0
"""How long reopening the file waits for running reads; by judgement."""

_PROBE_SECONDS: Final = 5.0
"""How long a probe waits for a writer, by judgement: single writes take milliseconds."""


class Database:
    """A database file of the present schema, open for this process alone.

    Safe to use from several threads: each reads through a cursor of its own,
    and writers take turns.
    """

    def __init__(self, path: Path | None) -> None:
        """Open `path`, create it if it is missing, and bring it to the present schema.

        Args:
            path: The file; None for a database in memory.

        Raises:
            StorageFault: It is locked, corrupt, of a newer version or can't be written, or
                something that was acknowledged isn't there.
        """
        self.path = ":memory:" if path is None else str(path)
        self.generation = 0
        """Counts up when the file is reopened: rows read before are no longer valid."""
        self.on_reopened: Callable[[], None] | None = None
        """Called after reopening: the file may be another one, such as a restored backup."""
        self.on_commit: Callable[[], None] | None = None
        """Called after each commit, with the write lock held: must be quick."""
        self._write = threading.RLock()
        self._readers = _Readers()
        self._local = threading.local()
        self._cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self._epoch = 0
        """Counts up with each opening; the cursors of earlier ones are closed."""
        self._broken = False
        self._closed = False
        self._statements = ParsedStatements()
        self._opened: tuple[int, int] | None = None
        """The identity of the opened file; its path may name another one later."""
        self._witness = None if path is None else Witness(path)
        if path is not None:
            prepare_folder(path)
        self._connection = self._connect()
        if path is not None:
            # The copy of an interrupted compaction: no other process has the file now.
            shutil.rmtree(copy_folder(path), ignore_errors=True)

    def read(self, sql: str, *values: object) -> list[Row]:
        """Return the rows of a query, at the state that was last committed.

        Raises:
            StorageFault: The driver could not read it.
        """
        with self._reading() as cursor:
            return cursor.execute(self._local.statements.get(cursor, sql), values).fetchall()

    def read_columns(self, sql: str, *values: object) -> dict[str, NDArray[Any]]:
        """Return the columns of a query by name, for results of many rows.

        Raises:
            StorageFault: The driver could not read it.
        """
        with self._reading() as cursor:
            columns: dict[str, NDArray[Any]] = cursor.execute(sql, values).fetchnumpy()
        return {name: np.asarray(column) for name, column in columns.items()}

    @contextlib.contextmanager
    def transaction(self, newest: Callable[[str], int] = lambda agent: 0) -> Iterator[Transaction]:
        """Hold the write lock; commit at the end, or roll back on any exception.

        After a normal exit the writes are durable.

        Args:
            newest: Returns an agent's newest change number.

        Raises:
            StorageFault: The driver could not write; nothing was stored.
        """
        with self._write:
            if self._revive():
                # The caller has prepared its writes from the old file.
                raise StorageFault(
                    f"the database {self.path} was replaced while it was open: nothing was stored",
                    hint="Repeat the call: the new file is used from now on",
                )
            connection = self._connection
            try:
                connection.begin()
                transaction = Transaction(connection, self._statements, newest)
                yield transaction
                connection.commit()
                if self._witness is not None:
                    self._check_files(self._witness.record)
                transaction.committed()
                if self.on_commit is not None:
                    self.on_commit()
            except duckdb.Error as error:
                self._roll_back(connection)
                raise self._fault(error) from error
            except BaseException:
                self._roll_back(connection)
                raise

    def checkpoint(self, *, wait: bool = True) -> bool:
        """Move everything from the write-ahead log into the file; other calls wait meanwhile.

        Args:
            wait: Whether to wait for a writer; if not, nothing is done while one is active.

        Returns:
            Whether it was done.

        Raises:
            StorageFault: The driver could not write; no committed data is lost.
        """
        if not self._write.acquire(blocking=wait):
            return False
        try:
            self._revive()
            self._connection.execute("CHECKPOINT")
            if self._witness is not None:
                self._witness.record_checkpoint()
        except duckdb.Error as error:
            raise self._fault(error) from error
        finally:
            self._write.release()
        return True

    @contextlib.contextmanager
    def closed(self) -> Iterator[Path]:
        """Close the file for exclusive work on it, and reopen it; other calls wait meanwhile.

        The file must have the same rows afterwards: caches stay valid.

        Raises:
            StorageFault: Somebody reads for too long, or it can't be opened again.
        """
        with self._write:
            self._revive()
            try:
                if not self._readers.exclude(_READS_END_SECONDS):
                    raise StorageFault(
                        f"the database {self.path} has been read for more than"
                        f" {_READS_END_SECONDS:g} s, so it was not closed",
                        hint="Nothing was changed; try again later",
                    )
                self._close_all()
                self._broken = True  # Until it is reopened.
                try:
                    yield Path(self.path)
                finally:
                    self._connection = self._connect()
                    self._broken = False
            finally:
                self._readers.admit()

    def verify(self) -> None:
        """Check that the files are those that were opened.

        Raises:
            StorageFault: They are not.
        """
        with self._write:
            self._revive()

    def probe(self) -> None:
        """Check that the database can be written, without a commit and not counted as activity.

        A row is written in a transaction that is rolled back, so nothing reaches the disk.
        The file system is asked for the rest: permissions, and space for the log.

        Raises:
            StorageFault: It can't be written.
        """
        if not self._write.acquire(timeout=_PROBE_SECONDS):
            raise StorageFault(
                f"a write to {self.path} has lasted more than {_PROBE_SECONDS:g} s",
                hint="Wait until that write has finished",
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

    def close(self) -> None:
        """Close the file; closing again does nothing."""
        with self._write:
            if not self._closed:
                self._closed = True
                self._readers.exclude(_READS_END_SECONDS)
                self._check_before_closing()
                self._close_all()
                self._readers.admit()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if self._witness is not None:
            self._witness.check()
        try:
            connection = duckdb.connect(address(self.path), config=CONFIG)
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
        self._statements = ParsedStatements()
        self._epoch += 1
        self._keep_private()
        self._opened = identity(self.path)
        if self._witness is not None:
            self._witness.begin()
        return connection

    def _keep_private(self) -> None:
        # A commit may have created the log.
        if self.path != ":memory:":
            keep_private(self.path, f"{self.path}.wal")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield the thread's cursor, and keep the file open while it is used."""
        while True:
            cursor = self._cursor()
            self._readers.enter()
            # The file may just have been reopened, which closes the cursor.
            if self._local.cursor[0] == self._epoch or self._closed:
                break
            self._readers.leave()
        try:
            yield cursor
        except duckdb.Error as error:
            raise self._fault(error) from error
        finally:
            self._readers.leave()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if self._broken:
            with self._write:
                self._revive()
        own: tuple[int, duckdb.DuckDBPyConnection] | None = getattr(self._local, "cursor", None)
        if own is None or own[0] != self._epoch:
            if self._closed:
                raise StorageFault("the database is closed", hint="Restart the server")
            with self._write:
                own = (self._epoch, self._connection.cursor())
                self._cursors.add(own[1])
            self._local.cursor = own
            self._local.statements = ParsedStatements()
        return own[1]

    def _close_all(self) -> None:
        # The driver keeps the file open and locked while any cursor is left.
        for connection in (*self._cursors, self._connection):
            with contextlib.suppress(duckdb.Error):
                connection.close()
        if self._witness is not None:
            self._witness.end()

    def _check_files(self, are_sound: Callable[[], bool]) -> None:
        """Check the open files; if the log was lost, move what it had from memory into the file.

        Args:
            are_sound: Returns whether the log is there.

        Raises:
            StorageFault: The file is another one, or the log can't be replaced.
        """
        if self._witness is None or self._broken:
            return
        try:
            if not are_sound():
                logger.warning("the log of %s was removed or replaced while open", self.path)
                self._witness.set_log_aside()
                self._connection.execute("CHECKPOINT")
                if not self._witness.record_checkpoint():
                    raise self._witness.log_fault()
        except (duckdb.Error, StorageFault) as error:
            self._broken = True
            self._keep_files()
            if isinstance(error, duckdb.Error):
                raise self._witness.log_fault() from error
            raise

    def _check_before_closing(self) -> None:
        # The file of a path that is gone may only have been moved: it is completed.
        if self._witness is not None and identity(self.path) is not None:
            with contextlib.suppress(StorageFault):
                self._check_files(self._witness.has_log)

    def _keep_files(self) -> None:
        """Prevent the driver's last checkpoint, which would change the file and delete the log."""
        with contextlib.suppress(duckdb.Error):
            self._connection.execute("PRAGMA disable_checkpoint_on_shutdown")

    def _roll_back(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            with contextlib.suppress(duckdb.TransactionException):
                connection.rollback()  # Unless the driver has rolled back by itself.
            connection.execute("PRAGMA disable_optimizer")
        except duckdb.Error:
            self._broken = True

    def _fault(self, error: duckdb.Error) -> StorageFault:
        fault = translate(error, self.path)
        # After a fatal error every statement fails until the file is reopened; then all
        # acknowledged writes are there. A damaged file may have been replaced.
        fatal = isinstance(error, duckdb.FatalException | duckdb.InternalException)
        if fatal or isinstance(fault, DatabaseCorrupt):
            self._broken = True
        return fault if isinstance(fault, StorageFault) else StorageFault(str(fault))

    def _revive(self) -> bool:
        """Reopen the file if needed; return whether it is another one now."""
        if self._closed:
            raise StorageFault("the database is closed", hint="Restart the server")
        if self.path == ":memory:":
            return False
        present = identity(self.path)
        replaced = present != self._opened
        if self._broken or replaced:
            self._broken = True
            if present is None:
                # A new file here would block a backup that is being restored.
                raise StorageFault(
                    f"the database {self.path} was moved away or deleted while it was open:"
                    " nothing was stored",
                    hint="Put it back or restore a backup",
                )
            # The log has acknowledged writes; it may belong to another file by now.
            self._keep_files()
            self._readers.exclude(_READS_END_SECONDS)
            try:
                self._close_all()
                self._connection = self._connect()
            finally:
                self._readers.admit()
            self._broken = False
            self.generation += 1
            if self.on_reopened is not None:
                self.on_reopened()
        elif self._witness is not None:
            self._check_files(self._witness.has_log)
        return replaced


class _Readers:
    """Counts running reads, so that reopening the file can wait for them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._excluded = False

    def enter(self) -> None:
        with self._changed:
            while self._excluded:
                self._changed.wait()
            self._running += 1

    def leave(self) -> None:
        with self._changed:
            self._running -= 1
            if self._excluded:
                self._changed.notify_all()

    def exclude(self, seconds: float) -> bool:
        """Let no new read begin, and wait for those that run; return whether they have ended."""
        with self._changed:
            self._excluded = True
            return self._changed.wait_for(lambda: not self._running, seconds)

    def admit(self) -> None:
        with self._changed:
            self._excluded = False
            self._changed.notify_all()


__all__ = ["CONFIG", "Database", "Row", "Transaction"]
