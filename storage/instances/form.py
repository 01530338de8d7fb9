"""Another form of a kept instance on its way into the store: a file beside the one that is there.

The order is that of an arrival: content, fsync, name, directories. It has no
name in the store before ``keep``, so that it can be proved first. Decides
nothing about which of the files is the one the index speaks of.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from pacs.core.identifiers import Digest, ObjectId
from pacs.core.records import IncomingMeta, Place
from storage.instances import part10
from storage.instances.incoming import HASHERS, Limits, as_pacs_error

_COPY_BYTES: Final = 1 << 20


def file_name(object_id: ObjectId, digest: Digest) -> str:
    """Name a kept file within its folder."""
    return f"{object_id}-{digest.replace(':', '-')}.dcm"


class DiskForm:
    """``pacs.core.form_ports.NewForm`` on a local file system."""

    def __init__(
        self,
        meta: IncomingMeta,
        data_set: str,
        *,
        folder: Path,
        beside: Place,
        algorithm: str,
        make_durable: Callable[[str], None],
        limits: Limits,
    ) -> None:
        self._data_set = data_set
        self._beside = beside
        self._make_durable = make_durable
        self._limits = limits
        self._file_meta = part10.encode(meta)
        self._hasher = HASHERS[algorithm]()
        self._algorithm = algorithm
        self._size = 0
        self._unnamed = folder / f"{beside.object_id}.{uuid.uuid4().hex}.part"
        self.path = str(self._unnamed)
        self.offset = len(self._file_meta)

    @property
    def digest(self) -> Digest:
        """Digest of its Data Set."""
        return Digest(f"{self._algorithm}:{self._hasher.hexdigest()}")

    def __enter__(self) -> "DiskForm":
        try:
            self._write()
        except OSError as error:
            self._drop()
            raise as_pacs_error(error) from error
        except BaseException:
            self._drop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._drop()

    def _write(self) -> None:
        self._unnamed.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(self._data_set, "rb") as source:  # noqa: PTH123 - a path of the caller's, as text
            self._limits.refuse_when_full(os.fstat(source.fileno()).st_size + self.offset)
            descriptor = os.open(self._unnamed, flags, 0o640)
            try:
                self._write_all(descriptor, self._file_meta)
                while piece := source.read(_COPY_BYTES):
                    self._hasher.update(piece)
                    self._write_all(descriptor, piece)
                os.fsync(descriptor)
                # The proof that follows reads what the disk holds, not what we meant to write.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

    def _write_all(self, descriptor: int, data: bytes) -> None:
        piece = memoryview(data)
        while piece:
            written = os.write(descriptor, piece)
            self._size += written
            piece = piece[written:]

    def keep(self) -> Place:
        """Give it its name; when this returns, it survives power loss. See the port.

        A file of that name can only be what an attempt that died left: it
        holds the same Data Set, and is replaced by this one in one step.
        """
        name = f"{self._beside.name.rpartition('/')[0]}/{file_name(self._beside.object_id, self.digest)}"
        path = self._limits.root / name
        try:
            os.replace(self._unnamed, path)  # noqa: PTH105 - as ``os.link`` beside it
            self._make_durable(str(path.parent))
        except OSError as error:
            if name != self._beside.name:
                with suppress(
                    OSError
                ):  # what cannot be removed is a surplus file: the chore looks at it
                    path.unlink(missing_ok=True)
            raise as_pacs_error(error) from error
        return Place(
            name=name,
            object_id=self._beside.object_id,
            size_bytes=self._size,
            data_set_offset=self.offset,
        )

    def _drop(self) -> None:
        with suppress(OSError):  # one that cannot be removed now is swept later
            self._unnamed.unlink(missing_ok=True)
