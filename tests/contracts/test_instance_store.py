"""The promises of ``pacs.core.ports.InstanceStore``, held against every store there is.

A further store subclasses ``InstanceStoreContract`` and supplies ``store``.
"""

import hashlib
import io
import os
from datetime import UTC, datetime
from pathlib import Path

import blake3
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import Storage
from pacs.core.errors import (
    CapacityExhausted,
    InstanceCorrupt,
    InstanceNotFound,
    InstanceTooLarge,
)
from pacs.core.identifiers import (
    AETitle,
    ObjectId,
    Registrant,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
    new_object_id,
)
from pacs.core.ports import InstanceStore
from pacs.core.records import IncomingMeta, Place, Provenance
from storage.instances.disk import DiskStore

STUDY = StudyInstanceUID("1.2.3")
PIECES = st.lists(st.binary(max_size=5_000), max_size=12)
QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def meta(registrant: str = "local") -> IncomingMeta:
    return IncomingMeta(
        sop_class_uid=SOPClassUID("1.2.840.10008.5.1.4.1.1.2"),
        sop_instance_uid=SOPInstanceUID("1.2.3.4"),
        transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.1"),
        provenance=Provenance(
            registrant=Registrant(registrant),
            issuer_of_patient_id="local",
            received_utc=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
            association="a",
            source_ae_title=AETitle("SOURCE"),
            receiving_ae_title=AETitle("PACS"),
        ),
    )


def keep(store: InstanceStore, *pieces: bytes, study: StudyInstanceUID = STUDY) -> Place:
    """Take one instance all the way in."""
    with store.incoming(meta()) as incoming:
        for piece in pieces:
            incoming.write(memoryview(piece))
        place = incoming.keep(study)
        incoming.settle()
    return place


def content(store: InstanceStore, place: Place) -> bytes:
    with store.open_data_set(place) as data_set:
        return data_set.read()


class InstanceStoreContract:
    """What every store promises."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> InstanceStore:
        raise AssertionError("a subclass supplies the store")

    @QUICK
    @given(pieces=PIECES)
    def test_what_was_written_is_what_is_read(
        self, store: InstanceStore, pieces: list[bytes]
    ) -> None:
        whole = b"".join(pieces)
        with store.incoming(meta()) as incoming:
            for piece in pieces:
                incoming.write(memoryview(piece))
            digest = incoming.finish()
            assert digest == f"blake3:{blake3.blake3(whole).hexdigest()}"
            assert incoming.data_set_bytes == len(whole)
            with incoming.open_data_set() as data_set:
                assert data_set.read() == whole
            promised = incoming.place(STUDY)
            place = incoming.keep(STUDY)
            incoming.settle()
        assert place == promised
        assert content(store, place) == whole
        with store.open(place) as file:
            part10 = file.read()
        assert len(part10) == place.size_bytes
        assert part10[128:132] == b"DICM"
        assert part10[place.data_set_offset :] == whole
        assert Path(store.path(place)).read_bytes() == part10
        assert store.read_meta(place) == (meta(), digest)
        store.verify(place, digest)
        assert place in list(store.places())

    @QUICK
    @given(data=st.binary(max_size=300), position=st.integers(0, 400), count=st.integers(-1, 400))
    def test_a_data_set_reads_like_a_file_of_its_own(
        self, store: InstanceStore, data: bytes, position: int, count: int
    ) -> None:
        plain = io.BytesIO(data)
        with store.open_data_set(keep(store, data)) as opened:
            assert opened.seek(position) == plain.seek(position)
            assert opened.read(count) == plain.read(count)
            assert opened.tell() == plain.tell()
            assert opened.seek(0, os.SEEK_END) == len(data)

    def test_an_abandoned_incoming_leaves_nothing(self, store: InstanceStore) -> None:
        with store.incoming(meta()) as incoming:
            incoming.write(memoryview(b"half"))
            arrival = Path(incoming.arrival_path)
            assert arrival.exists()
        assert not arrival.exists()
        assert list(store.places()) == [] and list(store.unsettled()) == []

    def test_an_error_on_the_way_leaves_nothing(self, store: InstanceStore) -> None:
        with pytest.raises(ZeroDivisionError), store.incoming(meta()) as incoming:
            incoming.write(memoryview(b"half"))
            raise ZeroDivisionError
        assert list(store.places()) == [] and list(store.unsettled()) == []

    def test_a_discarded_file_is_gone_although_it_was_kept(self, store: InstanceStore) -> None:
        with store.incoming(meta()) as incoming:
            place = incoming.keep(STUDY)
            incoming.discard()
            incoming.discard()
        assert list(store.places()) == [] and list(store.unsettled()) == []
        with pytest.raises(InstanceNotFound):
            store.open(place)

    def test_equal_bytes_get_another_place(self, store: InstanceStore) -> None:
        first, second = keep(store, b"same"), keep(store, b"same")
        assert first.name != second.name
        assert content(store, first) == content(store, second) == b"same"

    def test_places_come_in_the_order_of_their_object_ids(self, store: InstanceStore) -> None:
        kept = [keep(store, b"x", study=StudyInstanceUID(f"1.{index}")) for index in range(20)]
        ids = [place.object_id for place in store.places()]
        assert ids == sorted(place.object_id for place in kept)

    def test_what_is_kept_but_not_settled_is_on_its_way(self, store: InstanceStore) -> None:
        with store.incoming(meta()) as incoming:
            incoming.write(memoryview(b"doubt"))
            place = incoming.keep(STUDY)
        assert store.is_arriving(place.object_id)
        assert list(store.unsettled()) == [place]
        assert not store.is_arriving(place.object_id)
        assert list(store.unsettled()) == []
        assert content(store, place) == b"doubt"

    def test_what_is_settled_is_not_on_its_way(self, store: InstanceStore) -> None:
        place = keep(store, b"safe")
        assert not store.is_arriving(place.object_id)
        assert list(store.unsettled()) == []

    def test_removing_twice_is_no_error(self, store: InstanceStore) -> None:
        place, other = keep(store, b"a"), keep(store, b"b")
        store.remove(place)
        store.remove(place)
        assert list(store.places()) == [other]
        for read in (store.open, store.open_data_set):
            with pytest.raises(InstanceNotFound):
                read(place)

    @pytest.mark.parametrize("at", ["first", "middle", "last"])
    def test_one_wrong_bit_is_found(self, store: InstanceStore, at: str) -> None:
        data = os.urandom(3_000_000)
        place = keep(store, data)
        digest = store.read_meta(place)[1]
        path = Path(store.path(place))
        offset = {"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[at]
        with path.open("r+b") as file:
            file.seek(place.data_set_offset + offset)
            file.write(bytes((data[offset] ^ 1,)))
        with pytest.raises(InstanceCorrupt):
            store.verify(place, digest)

    def test_missing_and_shortened_files_are_found(self, store: InstanceStore) -> None:
        place = keep(store, b"some bytes")
        digest = store.read_meta(place)[1]
        path = Path(store.path(place))
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(InstanceCorrupt):
            store.verify(place, digest)
        path.unlink()
        with pytest.raises(InstanceNotFound):
            store.verify(place, digest)

    @QUICK
    @given(uid=st.text(min_size=1, max_size=64))
    def test_no_string_of_a_peer_is_part_of_a_name(self, store: InstanceStore, uid: str) -> None:
        place = keep(store, b"x", study=StudyInstanceUID(uid))
        year, month, day, folder, name = place.name.split("/")
        assert (year + month + day).isdigit() and len(folder) == 32
        assert int(folder, 16) >= 0
        assert name.startswith(place.object_id) and name.endswith(".dcm")

    def test_one_study_of_two_registrants_lies_in_two_folders(self, store: InstanceStore) -> None:
        folders = set()
        for registrant in ("one", "two"):
            with store.incoming(meta(registrant)) as incoming:
                folders.add(incoming.place(STUDY).name.rpartition("/")[0])
        assert len(folders) == 2


class TestDiskStore(InstanceStoreContract):
    """The promises on a local file system, and what is its own."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> InstanceStore:
        return DiskStore(tmp_path / "store", Storage(reserve_bytes=0))

    def test_a_kept_file_is_one_that_other_tools_open(self, tmp_path: Path) -> None:
        store = DiskStore(tmp_path, Storage(reserve_bytes=0))
        element = b"\x08\x00\x60\x00CS\x02\x00CT"
        read = pydicom.dcmread(store.path(keep(store, element)))
        assert read.Modality == "CT"
        assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4"
        assert read.file_meta.SourceApplicationEntityTitle == "SOURCE"

    def test_the_digest_is_a_setting(self, tmp_path: Path) -> None:
        store = DiskStore(tmp_path, Storage(reserve_bytes=0, digest="sha256"))
        place = keep(store, b"abc")
        digest = store.read_meta(place)[1]
        assert digest == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"
        DiskStore(tmp_path, Storage(reserve_bytes=0)).verify(place, digest)

    def test_too_large_is_told_at_finish_and_leaves_nothing(self, tmp_path: Path) -> None:
        store = DiskStore(tmp_path, Storage(reserve_bytes=0, max_instance_bytes=10))
        assert content(store, keep(store, b"0123456789")) == b"0123456789"
        with store.incoming(meta()) as incoming:
            incoming.write(memoryview(b"0123456789"))
            incoming.write(memoryview(b"a"))
            incoming.write(memoryview(b"more"))
            with pytest.raises(InstanceTooLarge):
                incoming.finish()
            with pytest.raises(InstanceTooLarge):
                incoming.keep(STUDY)
        assert len(list(store.places())) == 1
        assert list((tmp_path / "incoming").iterdir()) == []

    def test_the_reserve_is_never_touched(self, tmp_path: Path) -> None:
        store = DiskStore(tmp_path, Storage(reserve_bytes=1 << 50))
        assert store.free_bytes() == 0
        with store.incoming(meta()) as incoming:
            incoming.write(memoryview(b"x"))
            with pytest.raises(CapacityExhausted):
                incoming.finish()
        assert list((tmp_path / "incoming").iterdir()) == []

    def test_files_of_others_are_strays(self, tmp_path: Path) -> None:
        store = DiskStore(tmp_path, Storage(reserve_bytes=0))
        place = keep(store, b"x")
        stray = Path(store.path(place)).with_name("notes.txt")
        stray.write_text("x")
        assert list(store.strays()) == [stray.relative_to(tmp_path).as_posix()]
        assert list(store.places()) == [place]

    def test_a_folder_that_may_still_get_files_stays(self, tmp_path: Path) -> None:
        """Another process may take it for durable; anew under its name it would not be."""
        store = DiskStore(tmp_path, Storage(reserve_bytes=0))
        place = keep(store, b"x")
        folder = Path(store.path(place)).parent
        store.remove(place)
        assert folder.is_dir()

    def test_an_empty_folder_of_past_days_goes(self, tmp_path: Path) -> None:
        store = DiskStore(tmp_path, Storage(reserve_bytes=0))
        object_id: ObjectId = new_object_id(now_ms=1_700_000_000_000)
        name = f"2023/11/14/{'0' * 32}/{object_id}-blake3-{'0' * 64}.dcm"
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
        store.remove(Place(name=name, object_id=object_id, size_bytes=1, data_set_offset=0))
        assert not path.parent.exists()
