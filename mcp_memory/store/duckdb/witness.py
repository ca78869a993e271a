"""What the files of a database were after the last commit, so that a loss is noticed.

The driver opens a database without its log, with a log that is cut short, and with some
damaged logs, and drops what it can't find. It makes an empty database where one is gone, and
deletes the log of that one. So each commit leaves a line in `NAME.witness` beside the database:
the identity of the database, the number of its last checkpoint, and the length and checksum of
its log. The line is compared with the files before the driver may touch them.

It is written after the commit, so it never claims more than is on the disk. It may claim less,
after a kill in between or a power failure: a longer log is always accepted, and so is a later
checkpoint, which has everything that came before.

Source: DuckDB's storage format, `MainHeader` and `DatabaseHeader` in `storage_info.hpp`.
"""

from __future__ import annotations

import logging
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Final, NamedTuple

from mcp_memory.store.duckdb.files import FILE_MODE, identity, keep_private, size_bytes
from mcp_memory.values.errors import DataMissing, StorageFault

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

_MAGIC: Final = (8, b"DUCK")
_IDENTITY: Final = slice(124, 140)
_CHECKPOINTS: Final = (4_104, 8_200)
"""Where each of the two headers has the number of its checkpoint; the higher one is in force."""

_HEADERS_BYTES: Final = 8_208
"""From the start of the file to the end of the second number."""

_SQLITE: Final = b"SQLite format 3\0"

_FORMAT: Final = "mcp-memory-witness-1"
_LINE_BYTES: Final = 256
"""The size of the whole file, by judgement. It is overwritten in place: a full disk has room."""

_PIECE_BYTES: Final = 1 << 20
"""How much is read at once for a checksum; by judgement."""

_WRITE: Final = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
_READ: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0)


class FileState(NamedTuple):
    """The files of a database at one moment.

    Attributes:
        database: Its identity in hex digits; the driver gives one to each file that it makes.
        checkpoint: The number of its last checkpoint.
        file_bytes: The size of the file after that.
        log_bytes: How much of the log was acknowledged.
        log_crc: The checksum of that part, -1 if it is unknown.
    """

    database: str
    checkpoint: int
    file_bytes: int
    log_bytes: int = 0
    log_crc: int = 0


class Witness:
    """Compares the files of a database with what they were, and notes what they are.

    Not thread-safe: the caller holds the write lock.
    """

    def __init__(self, path: str | Path) -> None:
        # The driver's log is beside the file, by whatever link that is opened.
        self._file = os.path.realpath(path)
        self._log = f"{self._file}.wal"
        self.path = f"{self._file}.witness"
        self._handle: int | None = None
        """The open file: closing it before the driver does would drop the driver's lock."""
        self._opened: tuple[int, int] | None = None
        self._head = b""
        """Its headers as they were read last, if they are those of the state."""
        self._log_handle: int | None = None
        self._log_opened: tuple[int, int] | None = None
        self._line_handle: int | None = None
        self._log_bytes = 0
        """The size of the log before the present commit."""
        self._state: FileState | None = None
        self._has_failed = False

    def check(self) -> None:
        """Compare the files with the last line; to be called before the driver opens them.

        Raises:
            DataMissing: Something that was acknowledged isn't there.
            StorageFault: The file is of another kind.
        """
        self._state = None
        claims = self._read()
        try:
            handle = os.open(self._file, _READ)
        except FileNotFoundError:
            self._check_gone(is_known=bool(claims))
            return
        except OSError:
            return  # The driver says why.
        try:
            if _is_locked(handle):
                return  # The driver says by which process.
            found = _headers(handle)
            if found is None:
                self._check_kind(handle)
                return  # The driver says what is wrong with it.
        finally:
            os.close(handle)
        faults = []
        for claim in claims:
            fault = self._file_fault(claim, found) or self._log_fault(claim, found)
            if fault is None:
                self._state = claim
                return
            faults.append(fault)
        if faults:
            raise faults[0]

    def begin(self) -> None:
        """Follow the files from now on; to be called when the driver has opened them."""
        self._head = b""
        self._open()
        self._log_opened, self._log_bytes = _stat(self._log)

    def end(self) -> None:
        """Note the last checkpoint; to be called when the driver has closed the files."""
        if self._opened is None:
            return
        if self._handle is None:
            self._open()
        else:
            self.record_checkpoint()
        for handle in (self._handle, self._log_handle, self._line_handle):
            if handle is not None:
                os.close(handle)
        self._handle = self._log_handle = self._line_handle = self._opened = None

    def has_log(self) -> bool:
        """Return whether the log at its path is the one that the driver writes.

        Raises:
            DataMissing: The file is not the one that the driver has open.
        """
        if self._handle is None or self._state is None:
            return True
        self._open_headers(self._handle, self._state)
        opened, self._log_bytes = _stat(self._log)
        return not self._state.log_bytes or (
            opened == self._log_opened and self._log_bytes >= self._state.log_bytes
        )

    def record(self) -> bool:
        """Note what the files are after a commit.

        Returns:
            Whether the log at its path is the one that the driver writes; if not, nothing was
            noted.

        Raises:
            DataMissing: The file is not the one that the driver has open.
        """
        state = self._state
        if state is None:
            return True
        if self._handle is None:
            self._record_sizes(state)
            return True
        opened, log_bytes = _stat(self._log)
        if state.log_bytes and opened == self._log_opened and log_bytes > self._log_bytes:
            found = state  # A checkpoint would have ended this log.
        else:
            found = self._open_headers(self._handle, state)
            if found.checkpoint == state.checkpoint:
                found = state
        if found.log_bytes and (opened != self._log_opened or log_bytes < found.log_bytes):
            return False
        # Without a write, its end may be one that nobody has acknowledged.
        if opened is not None and log_bytes != self._log_bytes:
            try:
                handle = self._open_log(opened)
                crc = _crc(handle, found.log_bytes, log_bytes, found.log_crc)
            except OSError:
                return False
            found = found._replace(log_bytes=log_bytes, log_crc=crc)
        if found != state:
            self._write(found)
        return True

    def record_checkpoint(self) -> bool:
        """Note that everything is in the file now; return whether it is."""
        if self._handle is None or self._state is None:
            return True
        try:
            found = self._open_headers(self._handle, self._state)
        except DataMissing:
            return False
        if found.checkpoint == self._state.checkpoint:
            return False
        self._write(found)
        return True

    def set_log_aside(self) -> None:
        """Rename the file at the log's path, which a checkpoint deletes, if it is not the log.

        Raises:
            StorageFault: It can't be renamed.
        """
        if _stat(self._log)[0] in {None, self._log_opened}:
            return
        aside = f"{self._log}.aside"
        try:
            os.link(self._log, aside)  # Unlike renaming, this overwrites nothing.
            os.unlink(self._log)
        except OSError as error:
            raise StorageFault(
                f"{self._log} is not the log of the database that is open, and can't be renamed"
                f" to {aside}: {error.strerror}",
                hint="Move both away and repeat the call",
            ) from error

    def expect(self, copy: Path) -> None:
        """Accept `copy` too, a closed file that is about to be renamed over the database.

        Raises:
            OSError: That can't be noted.
        """
        claims = self._read()
        handle = os.open(copy, _READ)
        try:
            found = _headers(handle)
        finally:
            os.close(handle)
        if claims and found is not None:
            self._put((claims[0], found), sync=True)

    def log_fault(self) -> DataMissing:
        """Return the fault for a log that was lost while the database was open."""
        return self._log_missing("was removed or replaced while that was open")

    def _open_log(self, opened: tuple[int, int]) -> int:
        """Return the log, opened for reading; a checkpoint makes the driver begin another."""
        if self._log_handle is None or opened != self._log_opened:
            if self._log_handle is not None:
                os.close(self._log_handle)
            self._log_handle = os.open(self._log, _READ)
            self._log_opened = opened
            keep_private(self._log)
        return self._log_handle

    def _open(self) -> None:
        try:
            handle = os.open(self._file, _READ)
        except OSError:
            return  # Windows shares a file that is being written with nobody.
        self._handle = handle
        self._opened = identity(self._file)
        found = _headers(handle)
        if self._state is None or (found and found.checkpoint != self._state.checkpoint):
            self._state = found
        if self._state is not None:
            self._write(self._state)

    def _check_gone(self, *, is_known: bool) -> None:
        if is_known:
            raise DataMissing(
                f"the database {self._file} is gone",
                hint=f"Put it back or restore a backup, or delete {self.path}"
                " to start with an empty one",
            )
        if size_bytes(self._log):
            raise DataMissing(
                f"the database {self._file} is gone, and its log {self._log} is still there",
                hint="Put it back or restore a backup, or move the log away"
                " to start with an empty one",
            )

    def _check_kind(self, handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        if os.read(handle, len(_SQLITE)) == _SQLITE:
            raise StorageFault(
                f"the file {self._file} is a SQLite database, which this program does not use",
                hint="Set MCP_MEMORY_DB to another file; nothing was changed",
            )

    def _open_headers(self, handle: int, state: FileState) -> FileState:
        """Return the state of the file that the driver has open, without its log.

        Raises:
            DataMissing: It is not the file that the driver has opened.
        """
        opened, file_bytes = _stat(self._file)
        head = _head(handle)
        if opened == self._opened and head == self._head and file_bytes >= state.file_bytes:
            return state._replace(log_bytes=0, log_crc=0)
        found = _parsed_head(head, file_bytes)
        if found is None or opened != self._opened:
            raise self._other()
        fault = self._file_fault(state, found)
        if fault is not None:
            raise fault
        self._head = head if found.checkpoint == state.checkpoint else b""
        return found

    def _file_fault(self, claim: FileState, found: FileState) -> DataMissing | None:
        """Return what is wrong with the file, as it was found."""
        if claim.database != found.database:
            return self._other()
        if found.checkpoint < claim.checkpoint:
            return self._other("an older copy")
        if found.checkpoint == claim.checkpoint and found.file_bytes < claim.file_bytes:
            return DataMissing(
                f"the database {self._file} is cut short:"
                f" {found.file_bytes} of {claim.file_bytes} bytes",
                hint="Put the whole file back or restore a backup; nothing was changed",
            )
        return None

    def _other(self, what: str = "another one") -> DataMissing:
        return DataMissing(
            f"the database {self._file} was replaced by {what}",
            hint=f"Put back the one that was there, or delete {self.path} to use this one;"
            " nothing was changed",
        )

    def _log_fault(self, claim: FileState, found: FileState) -> DataMissing | None:
        """Return what is wrong with the log, unless a checkpoint has taken it into the file."""
        if found.checkpoint != claim.checkpoint or not claim.log_bytes:
            return None
        try:
            log = os.open(self._log, _READ)
        except FileNotFoundError:
            return self._log_missing("is gone")
        except OSError as error:
            return self._log_missing(f"can't be read ({error.strerror})")
        try:
            log_bytes = os.fstat(log).st_size
            if log_bytes < claim.log_bytes:
                return self._log_missing(f"is cut short: {log_bytes} of {claim.log_bytes} bytes")
            if claim.log_crc not in {-1, _crc(log, 0, claim.log_bytes, 0)}:
                return self._log_missing("is damaged, or belongs to another database")
        finally:
            os.close(log)
        return None

    def _log_missing(self, what: str) -> DataMissing:
        return DataMissing(
            f"the log {self._log} of the database {self._file} {what}",
            hint="Put the right one back or restore a backup, or go on without what it had:"
            f" move it and {self.path} aside; nothing was changed",
        )

    def _record_sizes(self, state: FileState) -> None:
        """Note the sizes alone, while nobody but the driver can read the files.

        A shorter log follows from a checkpoint: nobody else can shorten it. That there was
        more than one does no harm, as a later checkpoint is accepted.
        """
        log_bytes = size_bytes(self._log)
        found = state._replace(log_bytes=log_bytes, log_crc=-1)
        if log_bytes < state.log_bytes:
            found = found._replace(checkpoint=state.checkpoint + 1, file_bytes=0)
        self._write(found)

    def _read(self) -> tuple[FileState, ...]:
        """Return the states that the last line accepts; none if it can't be read."""
        try:
            line = Path(self.path).read_bytes()
        except OSError:
            return ()
        try:
            body, _, crc = line.decode("ascii").rstrip().rpartition(" ")
            name, *states = body.split(" | ")
            if name != _FORMAT or int(crc, 16) != zlib.crc32(body.encode()):
                raise ValueError(name)
            return tuple(_parsed(state) for state in states)
        except ValueError:
            logger.warning("%s is damaged and not used", self.path)
            return ()

    def _write(self, state: FileState) -> None:
        self._state = state
        try:
            self._put((state,))
        except OSError as error:
            # What is there claims less than it could, which is still true.
            if not self._has_failed:
                logger.warning("%s can't be written: %s", self.path, error.strerror)
            self._has_failed = True

    def _put(self, states: tuple[FileState, ...], *, sync: bool = False) -> None:
        body = " | ".join((_FORMAT, *(" ".join(map(str, state)) for state in states)))
        line = f"{body} {zlib.crc32(body.encode()):08x}".ljust(_LINE_BYTES - 1) + "\n"
        handle = self._line_handle
        if handle is None or not os.fstat(handle).st_nlink:
            if handle is not None:
                os.close(handle)
                self._line_handle = None
            handle = self._line_handle = os.open(self.path, _WRITE, FILE_MODE)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, line.encode())
        if sync:
            os.fsync(handle)


def _parsed(text: str) -> FileState:
    database, *numbers = text.split(" ")
    checkpoint, file_bytes, log_bytes, log_crc = map(int, numbers)
    return FileState(database, checkpoint, file_bytes, log_bytes, log_crc)


def _stat(path: str) -> tuple[tuple[int, int] | None, int]:
    """Return the identity and the size of a file; None and 0 if it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None, 0
    return (found.st_dev, found.st_ino), found.st_size


def _headers(handle: int) -> FileState | None:
    """Return the state of an open file, without its log; None if it isn't one of the driver."""
    return _parsed_head(_head(handle), os.fstat(handle).st_size)


def _head(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, _HEADERS_BYTES)


def _parsed_head(head: bytes, file_bytes: int) -> FileState | None:
    if len(head) < _HEADERS_BYTES or not head.startswith(_MAGIC[1], _MAGIC[0]):
        return None
    return FileState(
        database=head[_IDENTITY].hex(),
        checkpoint=max(struct.unpack_from("<Q", head, at)[0] for at in _CHECKPOINTS),
        file_bytes=file_bytes,
    )


def _crc(handle: int, start: int, end: int, crc: int) -> int:
    """Return the checksum of a file up to `end`; `crc` is that of its part before `start`."""
    os.lseek(handle, start, os.SEEK_SET)
    while start < end and (piece := os.read(handle, min(_PIECE_BYTES, end - start))):
        crc = zlib.crc32(piece, crc)
        start += len(piece)
    return crc


def _is_locked(handle: int) -> bool:
    """Return whether another process has a file open for writing."""
    if sys.platform == "win32":
        return False  # It could not have been opened.
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError | PermissionError)
    return False
