"""Instances as plain Part 10 files in a folder tree that no peer's string can reach.

``<yyyy>/<mm>/<dd>/<hash of registrant and Study Instance UID>/<object id>-<digest>.dcm``,
the date being that of the object id, UTC. docs/storage-format.md is its description.
"""

import hashlib
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from config.settings import Storage
from pacs.core.errors import InstanceCorrupt, InstanceNotFound
from pacs.core.identifiers import (
    Digest,
    ObjectId,
    StudyInstanceUID,
    new_object_id,
    object_id_time_ms,
)
from pacs.core.records import IncomingMeta, Place
from storage.instances import part10
from storage.instances.form import DiskForm, file_name
from storage.instances.incoming import HASHERS, DiskIncoming, Limits, open_from
from storage.instances.receivers import is_worker, unattended

_NAME = re.compile(r"([0-9a-f-]{36})-(blake3|sha256)-([0-9a-f]{64})\.dcm\Z")
_READ_BYTES = 1 << 20
_DURABLE_FOLDERS = 4_096
_FOLDER_STAYS_S = 2 * 86_400
_DAY_MS = 86_400_000
_REMEMBERED_DAYS = 64
_UNFINISHED = "reencoding"
"""Folder of forms that have no name in the store yet."""


class DiskStore:
    """``pacs.core.ports.InstanceStore`` on a local file system with hard links and fsync.

    With a ``receiver``, a process that receives beside others, what arrives here
    lies in a folder of its own. A listener finds only that unsettled; a worker
    also what workers left whose names nobody has; without a name, everything
    but what is on its way to workers that run.
    """

    def __init__(self, root: Path, storage: Storage, *, receiver: str = "") -> None:
        self._root = root
        self._receiver = receiver
        self._arrivals = root / "incoming" / receiver
        self._arrivals.mkdir(parents=True, exist_ok=True)
        self._limits = Limits(
            root,
            digest=storage.digest,
            reserve_bytes=storage.reserve_bytes,
            max_instance_bytes=storage.max_instance_bytes,
        )
        self._durable: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def incoming(self, meta: IncomingMeta) -> DiskIncoming:
        """Begin a file on the store's volume; a failure shows at ``finish``."""
        object_id = new_object_id()
        return DiskIncoming(
            meta,
            object_id=object_id,
            arrival=f"{self._arrivals}/{object_id}.part",
            final=lambda oid, study, digest: self._final(oid, study, digest, meta),
            make_durable=self._make_durable,
            limits=self._limits,
        )

    def _final(
        self, object_id: ObjectId, study: StudyInstanceUID, digest: Digest, meta: IncomingMeta
    ) -> str:
        """Name of a file within the store."""
        owner = f"{meta.provenance.registrant}\0{study}".encode()
        folder = hashlib.sha256(owner).hexdigest()[:32]
        return f"{_day_name(object_id)}/{folder}/{file_name(object_id, digest)}"

    def _day(self, object_id: ObjectId) -> Path:
        return self._root / _day_name(object_id)

    def _make_durable(self, folder: str) -> None:
        """Fsync a folder, and its parents unless this process has done so before.

        Another process may have created a parent and not yet fsynced it, so
        existence alone proves nothing.
        """
        _fsync_folder(folder)
        with self._lock:
            if folder in self._durable:
                return
        for parent in Path(folder).relative_to(self._root).parents:
            _fsync_folder(str(self._root / parent))
        with self._lock:
            self._durable[folder] = None
            while len(self._durable) > _DURABLE_FOLDERS:
                self._durable.popitem(last=False)

    def path(self, place: Place) -> str:
        """File system path of a kept file."""
        return str(self._root / place.name)

    def open(self, place: Place) -> BinaryIO:
        """Open a kept file from its first byte. Raises ``InstanceNotFound``."""
        try:
            return (self._root / place.name).open("rb")
        except FileNotFoundError as error:
            raise InstanceNotFound(f"file is missing: {place.name}") from error

    def open_data_set(self, place: Place) -> BinaryIO:
        """Open a kept file from the first byte of its Data Set. Raises ``InstanceNotFound``."""
        try:
            return open_from(self._root / place.name, place.data_set_offset)
        except FileNotFoundError as error:
            raise InstanceNotFound(f"file is missing: {place.name}") from error

    def verify(self, place: Place, digest: Digest) -> None:
        """Re-read the Data Set. Raises ``InstanceCorrupt`` or ``InstanceNotFound``."""
        with self.open_data_set(place) as data_set:
            _require_digest(data_set, digest, place.name)

    def check(self, path: str, digest: Digest) -> None:
        """Read any file from its first byte. Raises ``InstanceCorrupt`` unless it has that digest."""
        with open_from(path, 0) as data_set:
            _require_digest(data_set, digest, Path(path).name)

    def remove(self, place: Place) -> None:
        """Remove a kept file; one that is gone is no error. An empty folder of past days goes too.

        A folder that may still get files stays: another process takes its name
        for durable, and one made anew under it would not be.
        """
        path = self._root / place.name
        path.unlink(missing_ok=True)
        if time.time() - object_id_time_ms(place.object_id) / 1000 < _FOLDER_STAYS_S:
            return
        try:
            path.parent.rmdir()
        except OSError:
            return  # not empty, or gone: both are fine
        with self._lock:
            self._durable.pop(str(path.parent), None)

    def beside(
        self, place: Place, meta: IncomingMeta, data_set: str, *, algorithm: str
    ) -> DiskForm:
        """Make a durable file of a Data Set, to be kept beside ``place``; see the port."""
        return DiskForm(
            meta,
            data_set,
            folder=self._root / _UNFINISHED,
            beside=place,
            algorithm=algorithm,
            make_durable=self._make_durable,
            limits=self._limits,
        )

    def original(self, place: Place, digest: Digest) -> Place | None:
        """The file of the Data Set as received beside a form, ``None`` where it is gone."""
        folder = (self._root / place.name).parent
        try:
            return self._place(folder / file_name(place.object_id, digest))
        except FileNotFoundError:
            return None

    def files(self, beside: str, object_id: ObjectId) -> Sequence[Place]:
        """Every kept file of an object id in the folder of the file named ``beside``."""
        found = []
        for path in sorted((self._root / beside).parent.glob(f"{object_id}-*.dcm")):
            try:
                found.append(self._place(path))
            except FileNotFoundError:
                continue  # removed while we look
        return found

    def sweep_unfinished(self, older_s: float) -> int:
        """Remove what ``beside`` of a process that has died left unnamed so long ago."""
        gone = 0
        for one in (self._root / _UNFINISHED).glob("*.part"):
            try:
                if time.time() - one.stat().st_mtime > older_s:
                    one.unlink()
                    gone += 1
            except FileNotFoundError:
                continue  # finished, or swept by another node
        return gone

    def places(self) -> Iterator[Place]:
        """Walk all kept files in the order of their object ids, a day at a time."""
        for day in sorted(self._root.glob("[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9][0-9]")):
            for path in sorted(day.glob("*/*.dcm"), key=lambda one: one.name):
                try:
                    yield self._place(path)
                except FileNotFoundError:
                    continue  # purged while we walk

    def strays(self) -> Iterator[str]:
        """Walk the files of the tree whose names this archive never gave."""
        for path in self._root.glob("[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9][0-9]/*/*"):
            if not _NAME.match(path.name):
                yield self._limits.relative(path)

    def _place(self, path: Path) -> Place:
        name = _NAME.match(path.name)
        with path.open("rb") as file:
            start = file.read(144)
        try:
            offset = part10.data_set_offset(start)
        except InstanceCorrupt:
            offset = -1  # still a place: read_meta and verify say what is wrong with it
        return Place(
            name=self._limits.relative(path),
            object_id=ObjectId(name.group(1) if name else ""),
            size_bytes=path.stat().st_size,
            data_set_offset=offset,
        )

    def read_meta(self, place: Place) -> tuple[IncomingMeta, Digest]:
        """Read back what a file says of itself, and the digest in its name. Raises ``InstanceCorrupt``."""
        name = _NAME.match(place.name.rpartition("/")[2])
        if name is None or place.data_set_offset < 0:
            raise InstanceCorrupt(f"not a file of this archive: {place.name}")
        with self.open(place) as file:
            meta = part10.decode(file.read(place.data_set_offset))
        return meta, Digest(f"{name.group(2)}:{name.group(3)}")

    def unsettled(self) -> Iterator[Place | None]:
        """At start: what was on its way when the process ended; see the port."""
        folders = [self._arrivals] if self._receiver else self._all_arrivals()
        for folder in folders:
            if self._receiver or not is_worker(folder.name):
                yield from self._unsettled_in(folder)
        if self._receiver and not is_worker(self._receiver):
            return
        for folder in self._all_arrivals():
            if is_worker(folder.name):
                with unattended(self._root, folder.name) as free:
                    if free:
                        yield from self._unsettled_in(folder)

    def _unsettled_in(self, folder: Path) -> Iterator[Place | None]:
        for arrival in sorted(folder.glob("*.part")):
            kept: list[Path] = []
            if arrival.stat().st_nlink > 1:
                object_id = ObjectId(arrival.stem)
                kept = list(self._day(object_id).glob(f"*/{object_id}-*.dcm"))
                # What is meant is what arrived, not a form made of it since.
                kept = [one for one in kept if _is_same(one, arrival)]
            for path in kept:
                self._make_durable(str(path.parent))  # the end may have come between name and fsync
            yield self._place(kept[0]) if kept else None
            arrival.unlink(missing_ok=True)

    def is_arriving(self, object_id: ObjectId) -> bool:
        """Tell whether this file is on its way: kept perhaps, its rows not yet committed."""
        return any((one / f"{object_id}.part").exists() for one in self._all_arrivals())

    def _all_arrivals(self) -> list[Path]:
        """Where any process may be receiving."""
        common = self._root / "incoming"
        return [common, *(one for one in common.iterdir() if one.is_dir())]

    def free_bytes(self) -> int:
        """Bytes that may still be stored above the reserve."""
        return self._limits.free_bytes()


def _is_same(one: Path, other: Path) -> bool:
    """Tell whether two names are those of one file, both still there."""
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def _require_digest(data_set: BinaryIO, digest: Digest, name: str) -> None:
    algorithm, _, expected = digest.partition(":")
    hasher = HASHERS[algorithm]()
    try:
        while piece := data_set.read(_READ_BYTES):
            hasher.update(piece)
    except OSError as error:
        raise InstanceCorrupt(f"cannot be read: {name}: {error.strerror}") from error
    if hasher.hexdigest() != expected:
        raise InstanceCorrupt(f"digest differs: {name}")


def _day_name(object_id: ObjectId) -> str:
    """Name the folder of the day, UTC, on which an object id was issued."""
    return _date_path(object_id_time_ms(object_id) // _DAY_MS)


@lru_cache(_REMEMBERED_DAYS)
def _date_path(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY_MS // 1_000, UTC).strftime("%Y/%m/%d")


def _fsync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
