"""One instance on its way in: streamed to the store's own volume, hashed as it is written.

The order inside ``keep`` is the guarantee of law 1: content, fsync, name, every
directory that may be new. A crash in between leaves all of it or none of it.
The arrival name stays as a second hard link until ``settle``, so that start-up
finds exactly the instances whose rows may be missing.
"""

import errno
import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast

import blake3

from pacs.core.errors import (
    CapacityExhausted,
    InstanceTooLarge,
    PacsError,
    StorageFailed,
)
from pacs.core.identifiers import Digest, ObjectId, StudyInstanceUID
from pacs.core.records import IncomingMeta, Place
from storage.instances import part10
from storage.instances.writeout import PAGE_BYTES, begin_writing

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EMLINK}
_CHECK_EVERY_BYTES = 4 * 1024 * 1024
_HEAD_BYTES: Final = 65_536
"""So much of a Data Set stays at hand: the headers of nearly all end well within."""
_WRITE_OUT_BYTES: Final = 262_144
"""So much is written to the file before the disk is asked to begin with it."""


class Hasher(Protocol):
    """What ``hashlib`` and ``blake3`` have in common."""

    def update(self, data: memoryview | bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


HASHERS: dict[str, Callable[[], Hasher]] = {"blake3": blake3.blake3, "sha256": hashlib.sha256}


def as_pacs_error(error: OSError) -> PacsError:
    """Say in archive words what the system refused."""
    if error.errno in _NO_ROOM:
        return CapacityExhausted()
    return StorageFailed(f"{error.strerror} ({error.filename or 'store'})")


class OffsetReader(io.RawIOBase):
    """A file seen from ``offset`` on, so that a Data Set reads as if it stood alone."""

    def __init__(self, path: str | os.PathLike[str], offset: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = offset
        self._size = os.fstat(self._fd).st_size - offset
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # raw buffer protocol
        count = os.preadv(self._fd, [buffer], self._offset + self._position)
        self._position += count
        return count

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + position)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def open_from(path: str | os.PathLike[str], offset: int) -> BinaryIO:
    """Open ``path`` for buffered reading from ``offset`` on."""
    return io.BufferedReader(OffsetReader(path, offset), 65_536)


class _Arriving(io.RawIOBase):
    """A Data Set that has just arrived: its beginning out of memory, the rest out of its file."""

    def __init__(self, descriptor: int, head: bytearray, *, offset: int, size_bytes: int) -> None:
        self._fd = descriptor
        self._head = head
        self._offset = offset
        self._size = size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        start = self._position
        end = self._size if size < 0 else min(start + size, self._size)
        if end <= len(self._head):
            piece = bytes(self._head[start:end])
        else:
            piece = os.pread(self._fd, max(0, end - start), self._offset + start)
        self._position += len(piece)
        return piece

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # raw buffer protocol
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + position)
        return self._position

    def tell(self) -> int:
        return self._position


class DiskIncoming:
    """``pacs.core.ports.Incoming`` on a local file system."""

    def __init__(
        self,
        meta: IncomingMeta,
        *,
        object_id: ObjectId,
        arrival: str,
        final: Callable[[ObjectId, StudyInstanceUID, Digest], str],
        make_durable: Callable[[str], None],
        limits: "Limits",
    ) -> None:
        self.meta = meta
        self._object_id = object_id
        self._arrival = arrival
        self._final = final
        self._make_durable = make_durable
        self._limits = limits
        self._hasher = HASHERS[limits.digest]()
        self._failure: PacsError | None = None
        self._kept: str | None = None
        self._settled = False
        self._fd = -1
        self._digest: Digest | None = None
        self._place: tuple[StudyInstanceUID, Place] | None = None
        file_meta = part10.encode(meta)
        self._data_set_offset = len(file_meta)
        self._size = self._begun = 0
        self._head = bytearray()
        self._checked_until = 0
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(arrival, flags, 0o640)
            self._write_all(memoryview(file_meta))
        except OSError as error:
            self._failure = as_pacs_error(error)

    def write(self, piece: memoryview) -> None:
        """Append a piece of the Data Set; a failure shows at ``finish``."""
        if self._failure is not None:
            return
        try:
            self._append(piece)
        except OSError as error:
            self._failure = as_pacs_error(error)
        except PacsError as error:
            self._failure = error

    def _append(self, piece: memoryview) -> None:
        data_set_bytes = self._size - self._data_set_offset + len(piece)
        if data_set_bytes > self._limits.max_instance_bytes:
            raise InstanceTooLarge
        if data_set_bytes >= self._checked_until:
            self._limits.refuse_when_full(len(piece))
            self._checked_until = data_set_bytes + _CHECK_EVERY_BYTES
        self._write_all(piece)
        if len(self._head) < _HEAD_BYTES:
            self._head += piece[: _HEAD_BYTES - len(self._head)]
        if self._size - self._begun >= _WRITE_OUT_BYTES:
            whole = self._size // PAGE_BYTES * PAGE_BYTES  # a page begun twice is written twice
            begin_writing(self._fd, self._begun, whole - self._begun)
            self._begun = whole
        self._hasher.update(piece)

    def _write_all(self, piece: memoryview) -> None:
        while piece:
            written = os.write(self._fd, piece)
            self._size += written
            piece = piece[written:]

    def finish(self) -> Digest:
        """End the Data Set and give its digest. Raises what went wrong first."""
        if self._failure is not None:
            raise self._failure
        if self._digest is None:
            begin_writing(self._fd, self._begun, self._size - self._begun)
            self._digest = Digest(f"{self._limits.digest}:{self._hasher.hexdigest()}")
        return self._digest

    @property
    def data_set_bytes(self) -> int:
        """Length of the Data Set received so far."""
        return self._size - self._data_set_offset

    @property
    def arrival_path(self) -> str:
        """File system path while it arrives."""
        return self._arrival

    def open_data_set(self) -> BinaryIO:
        """Read what was written, from the first byte of the Data Set, until this is left."""
        reader = _Arriving(
            self._fd, self._head, offset=self._data_set_offset, size_bytes=self.data_set_bytes
        )
        return cast(BinaryIO, reader)

    def place(self, study: StudyInstanceUID) -> Place:
        """Where ``keep`` will put the file."""
        if self._place is None or self._place[0] != study:
            name = self._final(self._object_id, study, self.finish())
            place = Place(
                name=name,
                object_id=self._object_id,
                size_bytes=self._size,
                data_set_offset=self._data_set_offset,
            )
            self._place = (study, place)
        return self._place[1]

    def keep(self, study: StudyInstanceUID) -> Place:
        """Give the file its final name; when this returns, it survives power loss."""
        place = self.place(study)
        path = f"{self._limits.root}/{place.name}"
        folder = path.rpartition("/")[0]
        try:
            os.fsync(self._fd)
            self._name(path, folder)
            self._kept = path
            self._make_durable(folder)
        except OSError as error:
            with suppress(OSError):  # what cannot be removed keeps its mark: start-up looks at it
                self.discard()
            raise as_pacs_error(error) from error
        return place

    def _name(self, path: str, folder: str) -> None:
        """Make the final name, and its folder where it is the study's first."""
        try:
            os.link(self._arrival, path)
        except FileNotFoundError:
            Path(folder).mkdir(parents=True, exist_ok=True)
            os.link(self._arrival, path)

    def settle(self) -> None:
        """The rows are committed: drop the arrival name."""
        self._settled = True
        self._drop_arrival()

    def discard(self) -> None:
        """Remove the file, kept or not."""
        if self._kept is not None:
            Path(self._kept).unlink(missing_ok=True)
            self._kept = None
        self._drop_arrival()

    def _drop_arrival(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._arrival)  # noqa: PTH108 - once per instance: Path costs four times as much

    def __enter__(self) -> "DiskIncoming":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if not self._settled and self._kept is None:
            self._drop_arrival()


class Limits:
    """What the store allows: room above the reserve, size of an instance, digest."""

    def __init__(
        self, root: Path, *, digest: str, reserve_bytes: int, max_instance_bytes: int
    ) -> None:
        self.root = root
        self.digest = digest
        self.reserve_bytes = reserve_bytes
        self.max_instance_bytes = max_instance_bytes

    def free_bytes(self) -> int:
        """Bytes that may still be stored above the reserve."""
        volume = os.statvfs(self.root)
        return max(0, volume.f_bavail * volume.f_frsize - self.reserve_bytes)

    def refuse_when_full(self, wanted_bytes: int) -> None:
        """Raise ``CapacityExhausted`` when ``wanted_bytes`` would touch the reserve."""
        if self.free_bytes() <= wanted_bytes:
            raise CapacityExhausted

    def relative(self, path: Path) -> str:
        """Name of a file within the store."""
        return path.relative_to(self.root).as_posix()
