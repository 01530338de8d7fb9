"""Two subscribers, the same patient ID and the same UIDs: never mixed, merged, replaced or revealed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from pacs.app.archive import Archive
from pacs.app.listening import listening
from pacs.core.attributes import Level
from pacs.core.caller import Caller, Candidate, Right, SubscriberName, Visibility
from pacs.core.identifiers import Registrant, new_object_id
from tests.keeping import ADMIN, data_set, opened
from tests.pynetdicom_hold import hold

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.1.{number}" for number in (1, 2, 3))
SUBSCRIBERS = {"ALPHA_CT": "alpha", "BETA_CT": "beta", "BOTH": "both"}
SEEN = {"both": ("alpha", "beta")}


class TwoContracts:
    """A gate that knows two devices, each of a subscriber of its own."""

    def admit(self, candidate: Candidate) -> Caller:
        name = SUBSCRIBERS[candidate.calling_ae_title]
        return Caller(
            subscriber=SubscriberName(name),
            rights=frozenset(Right),
            visibility=Visibility(registrants=frozenset(map(Registrant, SEEN.get(name, (name,))))),
            ae_title=candidate.calling_ae_title,
            address=candidate.address,
            association=new_object_id(),
            issuer_of_patient_id="hospital",
        )

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        assert right is Right.CONNECT or right in caller.rights
        return caller

    def stands(self, caller: Caller) -> bool:
        return True


class Device:
    """A device of one subscriber, on real associations."""

    def __init__(self, ae_title: str, port: int) -> None:
        self._ae_title = ae_title
        self._port = port

    def _associate(self, *classes: str, received: list[Dataset] | None = None) -> Any:
        entity = AE(ae_title=self._ae_title)
        for uid in classes:
            entity.add_requested_context(uid, ExplicitVRLittleEndian)

        def take(event: Any) -> int:
            assert received is not None
            received.append(event.dataset)
            return 0x0000

        more: dict[str, Any] = {}
        if received is not None:
            more = {
                "ext_neg": [build_role(CTImageStorage, scp_role=True)],
                "evt_handlers": [(evt.EVT_C_STORE, take)],
            }
        association = entity.associate("127.0.0.1", self._port, **more)
        assert association.is_established
        hold(association)
        return association

    def store(self, made: Dataset) -> int:
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        association = self._associate(CTImageStorage)
        status: int = association.send_c_store(made).Status
        association.release()
        return status

    def find(self, level: str, **keys: str) -> list[Dataset]:
        association = self._associate(FIND)
        responses = list(association.send_c_find(asked(level, **keys), FIND))
        association.release()
        assert responses[-1][0].Status == 0x0000
        return [one for _, one in responses if one is not None]

    def get(self, level: str, **keys: str) -> list[Dataset]:
        received: list[Dataset] = []
        association = self._associate(GET, CTImageStorage, received=received)
        *_, (last, _) = association.send_c_get(asked(level, **keys), GET)
        association.release()
        assert last.Status == 0x0000
        assert last.NumberOfCompletedSuboperations == len(received)
        return received

    def refusal(self, level: str, **keys: str) -> Dataset:
        """The answer to a C-GET that delivers nothing."""
        received: list[Dataset] = []
        association = self._associate(GET, CTImageStorage, received=received)
        ((answer, _),) = association.send_c_get(asked(level, **keys), GET)
        association.release()
        assert received == []
        refused: Dataset = answer
        return refused

    def move(self, destination: str, level: str, **keys: str) -> Dataset:
        association = self._associate(MOVE)
        *_, (last, _) = association.send_c_move(asked(level, **keys), destination, MOVE)
        association.release()
        answer: Dataset = last
        return answer


def asked(level: str, **keys: str) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


@pytest.fixture
def archive(url: str, tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, url, gate=TwoContracts()) as made:
        yield made


@pytest.fixture
def devices(archive: Archive) -> Iterator[tuple[Device, Device]]:
    with listening(archive) as port:
        yield Device("ALPHA_CT", port), Device("BETA_CT", port)


@pytest.fixture
def destination(archive: Archive) -> Iterator[list[Dataset]]:
    """A receiver that both may name, and what it received."""
    received: list[Dataset] = []

    def take(event: Any) -> int:
        received.append(event.dataset)
        return 0x0000

    entity = AE(ae_title="DEST")
    entity.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, take)]
    )
    assert server is not None
    archive.peers.add(ADMIN, "DEST", "127.0.0.1", server.socket.getsockname()[1])
    yield received
    server.shutdown()


_COUNTS = {"PatientName": "", "NumberOfPatientRelatedStudies": "",
           "NumberOfPatientRelatedInstances": ""}  # fmt: skip
_STUDY = {"StudyInstanceUID": "1.1", "PatientID": "P1"}


def test_same_patient_id_and_same_uids(
    archive: Archive, devices: tuple[Device, Device], destination: list[Dataset]
) -> None:
    alpha, beta = devices
    assert alpha.store(data_set("1.1", "1.1.1", "1.1.1.1", PatientName="Of^Alpha")) == 0
    assert alpha.store(data_set("1.1", "1.1.1", "1.1.1.2", PatientName="Of^Alpha")) == 0
    assert beta.store(data_set("1.1", "1.1.1", "1.1.1.1", PatientName="Of^Beta")) == 0
    assert beta.store(data_set("1.2", "1.2.1", "1.2.1.1", PatientName="Of^Beta")) == 0
    for device, name, studies, instances in ((alpha, "Of^Alpha", 1, 2), (beta, "Of^Beta", 2, 2)):
        (patient,) = device.find("PATIENT", PatientID="P1", **_COUNTS)
        assert patient.PatientName == name
        assert patient.NumberOfPatientRelatedStudies == studies
        assert patient.NumberOfPatientRelatedInstances == instances
        (got,) = device.get("IMAGE", **_STUDY, SeriesInstanceUID="1.1.1", SOPInstanceUID="1.1.1.1")
        assert got.PatientName == name
        assert {str(one.PatientName) for one in device.get("PATIENT", PatientID="P1")} == {name}
        destination.clear()
        assert device.move("DEST", "PATIENT", PatientID="P1").Status == 0x0000
        assert [one.PatientName for one in destination] == [name] * instances
    assert archive.conflicts.list(ADMIN, settled_too=True) == []


def test_who_sees_both_never_gets_them_mixed(archive: Archive) -> None:
    with listening(archive) as port:
        alpha, beta, both = (Device(one, port) for one in ("ALPHA_CT", "BETA_CT", "BOTH"))
        assert alpha.store(data_set("1.1", "1.1.1", "1.1.1.1", PatientName="Of^Alpha")) == 0
        assert beta.store(data_set("1.1", "1.1.1", "1.1.1.1", PatientName="Of^Beta")) == 0
        assert beta.store(data_set("1.2", "1.2.1", "1.2.1.1", PatientName="Of^Beta")) == 0
        found = both.find("PATIENT", PatientID="P1", PatientName="")
        assert {str(one.PatientName) for one in found} == {"Of^Alpha", "Of^Beta"}
        for level, keys in (("PATIENT", {"PatientID": "P1"}), ("STUDY", _STUDY)):
            answer = both.refusal(level, **keys)
            assert answer.Status == 0xA900
            assert answer.OffendingElement == 0x00100021
        (got,) = both.get("STUDY", PatientID="P1", StudyInstanceUID="1.2")
        assert got.PatientName == "Of^Beta"


def test_the_same_bytes_are_kept_for_each(
    archive: Archive, devices: tuple[Device, Device], tmp_path: Path
) -> None:
    for device in devices:
        assert device.store(data_set("1.1", "1.1.1", "1.1.1.1")) == 0
        assert device.store(data_set("1.1", "1.1.1", "1.1.1.1")) == 0
    kept = sorted((tmp_path / "store").rglob("*.dcm"))
    assert len(kept) == 2
    assert len({one.parent for one in kept}) == 2, "not even a folder is shared"
    for device in devices:
        (study,) = device.find("STUDY", **_STUDY, NumberOfStudyRelatedInstances="")
        assert study.NumberOfStudyRelatedInstances == 1


def test_nothing_of_the_other_is_revealed(devices: tuple[Device, Device]) -> None:
    alpha, beta = devices
    assert alpha.store(data_set("1.1", "1.1.1", "1.1.1.1")) == 0
    for level, keys in (
        ("PATIENT", {"PatientID": "P1"}),
        ("STUDY", _STUDY),
        ("SERIES", {**_STUDY, "SeriesInstanceUID": "1.1.1"}),
        ("IMAGE", {**_STUDY, "SeriesInstanceUID": "1.1.1", "SOPInstanceUID": "1.1.1.1"}),
    ):
        assert len(alpha.find(level, **keys)) == 1
        assert beta.find(level, **keys) == []
        assert beta.get(level, **keys) == []


def test_versions_and_deletions_stay_with_their_registrant(
    archive: Archive, devices: tuple[Device, Device]
) -> None:
    alpha, beta = devices
    for device in devices:
        assert device.store(data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription="first")) == 0
    assert alpha.store(data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription="second")) == 0
    assert [one.registrant for one in archive.conflicts.list(ADMIN)] == ["alpha"]
    archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r", registrant="alpha")
    assert alpha.find("STUDY", **_STUDY) == []
    assert len(beta.find("STUDY", **_STUDY)) == 1
