"""Two facilities that know the same Patient ID, and readers by agreement, asked by foreign peers.

Everybody finds and gets what the agreement says, and of everything else not
even that it exists.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association

from pacs.app.archive import Archive
from pacs.app.listening import listening
from pacs.core.attributes import Level
from pacs.core.caller import Caller, Candidate, Right, SubscriberName, Visibility
from pacs.core.errors import NotAuthorized
from pacs.core.identifiers import AETitle, Registrant, StudyInstanceUID, new_object_id
from tests import raw_peer
from tests.archive import Tool, database, run, storescp
from tests.keeping import ADMIN, data_set, opened
from tests.raw_peer import EXPLICIT_LITTLE, FIND, MOVE, PATIENT_ROOT, STUDY_ROOT, identifier

CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "SR": "1.2.840.10008.5.1.4.1.1.88.11",
}
PURPOSE = 0x31091003
KEYS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True, slots=True)
class Held:
    """One instance: ``uid`` is its SOP Instance UID, of which series and study are the beginning."""

    registrant: str
    patient: str
    uid: str
    modality: str
    rows: int | None = None

    @property
    def study(self) -> str:
        return ".".join(self.uid.split(".")[:2])

    @property
    def series(self) -> str:
        return ".".join(self.uid.split(".")[:3])

    @property
    def path(self) -> tuple[str, str, str, str]:
        """The values of the unique keys."""
        return self.patient, self.study, self.series, self.uid

    def made(self) -> Dataset:
        values: dict[str, Any] = {
            "PatientID": self.patient,
            "PatientName": f"Of^{self.registrant}",
            "IssuerOfPatientID": f"ISSUER_{self.registrant}",
            "Modality": self.modality,
            "SOPClassUID": CLASSES[self.modality],
        }
        if self.rows:
            values |= {"Rows": self.rows, "Columns": 64}
        return data_set(self.study, self.series, self.uid, **values)


HELD = (
    Held("a", "P1", "1.1.1.1", "CT", 512),
    Held("a", "P1", "1.1.1.2", "CT", 512),
    Held("a", "P1", "1.1.2.1", "MR", 256),
    Held("a", "P1", "1.1.2.2", "MR", 512),
    Held("a", "P1", "1.1.3.1", "SR"),
    Held("a", "P2", "1.4.1.1", "CT", 64),
    Held("b", "P1", "1.1.1.1", "CT", 512),  # the same UIDs as one of the other facility's
    Held("b", "P1", "1.2.1.1", "MR", 256),
    Held("b", "P1", "1.3.1.1", "CT", 128),
)
A, B = Registrant("a"), Registrant("b")
STUDY_OF_B = (B, StudyInstanceUID("1.2"))
MR_ONLY = Visibility(everything=True, modalities=frozenset({"MR"}))
SEEN = {
    "A_CT": Visibility(registrants=frozenset({A})),
    "B_CT": Visibility(registrants=frozenset({B})),
    "READ_A": Visibility(registrants=frozenset({Registrant("reader"), A})),
    "READ_1": Visibility(
        registrants=frozenset({Registrant("reader")}), studies=frozenset({STUDY_OF_B})
    ),
    "PERSON": Visibility(studies=frozenset({STUDY_OF_B})),
    "READ_ALL": Visibility(everything=True),
    "READ_MR": Visibility(everything=True),
    "NOTHING": Visibility(),
}
OWNER = {"A_CT": "a", "B_CT": "b"}
CALLERS = tuple(SEEN)


def seen_by(ae_title: str) -> list[Held]:
    """The rule, said plainly; who reads MR states the purpose that bounds it."""
    seen = MR_ONLY if ae_title == "READ_MR" else SEEN[ae_title]
    return [
        one
        for one in HELD
        if (
            seen.everything
            or one.registrant in seen.registrants
            or (one.registrant, one.study) in seen.studies
        )
        and (seen.modalities is None or one.modality in seen.modalities)
    ]


class Contracts:
    """A gate that knows these callers; one of them has a purpose to state."""

    def admit(self, candidate: Candidate) -> Caller:
        name = candidate.calling_ae_title
        return Caller(
            subscriber=SubscriberName(OWNER.get(name, "reader")),
            rights=frozenset(Right),
            visibility=SEEN[name],
            purpose="care",
            ae_title=name,
            address=candidate.address,
            association=new_object_id(),
            issuer_of_patient_id="issuer",
            destinations=frozenset({AETitle("DEST")}),
        )

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        if purpose in ("", caller.purpose):
            return caller
        if (caller.ae_title, purpose) != ("READ_MR", "research"):
            raise NotAuthorized("no such purpose")
        return replace(caller, visibility=MR_ONLY, max_matrix=256, purpose=purpose)

    def stands(self, caller: Caller) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class Place:
    """The archive as its peers see it, and how to look at what it wrote."""

    archive: Archive
    port: int
    folder: Path

    def audited(self, event: str) -> list[dict[str, Any]]:
        lines = [
            json.loads(line)
            for file in sorted((self.folder / "home" / "audit").glob("*.jsonl"))
            for line in file.read_text().splitlines()
        ]
        return [one for one in lines if one["event"] == event]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    peer_tool: Callable[[str], str],
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("facilities")
    with ExitStack() as stack:
        url = ""
        if request.param == "postgresql":
            url = stack.enter_context(database(request.getfixturevalue("postgres_cluster")))
        archive = stack.enter_context(opened(folder / "home", url, gate=Contracts()))
        made = Place(archive=archive, port=stack.enter_context(listening(archive)), folder=folder)
        for name, owner in OWNER.items():
            files = written(folder / name, [one for one in HELD if one.registrant == owner])
            said = run(
                peer_tool("storescu"), "-R", "-aet", name, "127.0.0.1", str(made.port), *files
            )
            assert said.code == 0, said.text
        yield made


def written(folder: Path, some: list[Held]) -> list[str]:
    folder.mkdir()
    for number, one in enumerate(some):
        made = one.made()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return [str(one) for one in sorted(folder.iterdir())]


def question(ae_title: str, level: str, purpose: str | None = None, **keys: Any) -> Dataset:
    """An identifier, with the purpose its caller states."""
    made = identifier(level, **keys)
    text = "research" if purpose is None and ae_title == "READ_MR" else purpose
    if text is not None:
        made.private_block(0x3109, "PACS ARCHIVE 1", create=True).add_new(3, "LO", text)
    return made


@contextmanager
def asking(place: Place, ae_title: str, *, relational: bool = False) -> Iterator[Association]:
    contexts = [
        (root + one, [EXPLICIT_LITTLE])
        for root in (PATIENT_ROOT, STUDY_ROOT)
        for one in FIND + MOVE
    ]
    asked = [(uid, b"\x01") for uid, _ in contexts] if relational else []
    with raw_peer.associated(place.port, contexts, extended=asked, ae_title=ae_title) as one:
        yield one


def found(answers: list[Dataset], level: Level) -> list[tuple[str, ...]]:
    return sorted(
        tuple(str(one.get(keyword, "")) for keyword in KEYS[: level.depth + 1]) for one in answers
    )


def expected(some: list[Held], level: Level) -> list[tuple[str, ...]]:
    """One answer for each entity; the same UIDs of two registrants are two."""
    entities = {(one.registrant, *one.path[: level.depth + 1]) for one in some}
    return sorted(one[1:] for one in entities)


# --- C-FIND ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLERS)
def test_relational_queries_list_what_is_visible_at_every_level(place: Place, name: str) -> None:
    with asking(place, name, relational=True) as association:
        for level in Level:
            asked = question(name, level.value, **dict.fromkeys(KEYS[: level.depth + 1], ""))
            answers = raw_peer.matches(association, PATIENT_ROOT, asked)
            assert found(answers, level) == expected(seen_by(name), level)
        for modality in CLASSES:
            asked = question(name, "STUDY", StudyInstanceUID="", PatientID="", Modality=modality)
            answers = raw_peer.matches(association, PATIENT_ROOT, asked)
            some = [one for one in seen_by(name) if one.modality == modality]
            assert found(answers, Level.STUDY) == expected(some, Level.STUDY)


@pytest.mark.parametrize("name", CALLERS)
def test_hierarchical_queries_answer_of_the_hidden_as_of_what_is_not_there(
    place: Place, name: str
) -> None:
    with asking(place, name) as association:
        for one in sorted({(*held.path,) for held in HELD}):
            for level in Level:
                keys = dict(zip(KEYS, one[: level.depth + 1], strict=False))
                answers = raw_peer.matches(
                    association, PATIENT_ROOT, question(name, level.value, **keys)
                )
                some = [x for x in seen_by(name) if x.path[: level.depth + 1] == (*keys.values(),)]
                assert found(answers, level) == expected(some, level)
        lists = {"StudyInstanceUID": [*{one.study for one in HELD}, "1.404"]}
        answers = raw_peer.matches(
            association, STUDY_ROOT, question(name, "STUDY", PatientID="", **lists)
        )
        assert found(answers, Level.STUDY) == expected(seen_by(name), Level.STUDY)


@pytest.mark.parametrize("name", CALLERS)
def test_counts_tell_nothing_of_what_is_hidden(place: Place, name: str) -> None:
    counts = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances",
              "ModalitiesInStudy", "SOPClassesInStudy", "PatientName")  # fmt: skip
    with asking(place, name) as association:
        keys = {"StudyInstanceUID": "", **dict.fromkeys(counts, "")}
        for answer in raw_peer.matches(association, STUDY_ROOT, question(name, "STUDY", **keys)):
            some = [
                one
                for one in seen_by(name)
                if one.study == answer.StudyInstanceUID
                and f"Of^{one.registrant}" == answer.PatientName
            ]
            assert answer.NumberOfStudyRelatedInstances == len(some)
            assert answer.NumberOfStudyRelatedSeries == len({one.series for one in some})
            assert listed(answer.ModalitiesInStudy) == {one.modality for one in some}
            assert listed(answer.SOPClassesInStudy) == {CLASSES[one.modality] for one in some}
        keys = {"PatientID": "P1", "PatientName": "", "NumberOfPatientRelatedInstances": ""}
        for answer in raw_peer.matches(
            association, PATIENT_ROOT, question(name, "PATIENT", **keys)
        ):
            some = [one for one in seen_by(name) if f"Of^{one.registrant}" == answer.PatientName]
            total = len([one for one in some if one.patient == "P1"])
            assert answer.NumberOfPatientRelatedInstances == total


def listed(value: Any) -> set[str]:
    return {value} if isinstance(value, str) else set(value)


# --- the purpose -------------------------------------------------------------------------


def test_the_purpose_in_force_is_answered_where_it_is_asked_for(place: Place) -> None:
    for name, text, told in (("READ_MR", "research", "research"), ("A_CT", "", "care")):
        with asking(place, name) as association:
            asked = question(name, "PATIENT", text, PatientID="P1")
            first, *_ = raw_peer.find(association, PATIENT_ROOT, asked)
        assert first[0].Status == 0xFF00, "a supported key"
        assert first[1] is not None
        assert first[1].private_block(0x3109, "PACS ARCHIVE 1")[3].value == told


@pytest.mark.parametrize(
    ("text", "status"),
    [("billing", 0x0124), (["research", "care"], 0xA900), ("r" * 65, 0xA900), ("a\tb", 0xA900)],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_purpose_that_is_not_granted_or_malformed_gets_nothing(
    place: Place, text: Any, status: int
) -> None:
    asked = question("READ_MR", "PATIENT", text, PatientID="P1")
    with asking(place, "READ_MR") as association:
        ((answer, _),) = raw_peer.find(association, PATIENT_ROOT, asked)
        assert answer.Status == status
        ((answer, _),) = raw_peer.move(association, PATIENT_ROOT, asked, "DEST")
        assert answer.Status == status
        if status == 0xA900:
            assert answer.OffendingElement == PURPOSE


def test_another_makers_block_states_no_purpose(place: Place) -> None:
    asked = identifier("PATIENT", PatientID="P1")
    asked.private_block(0x3109, "SOMEBODY ELSE", create=True).add_new(3, "LO", "billing")
    with asking(place, "READ_MR") as association:
        answers = [one for one, _ in raw_peer.find(association, PATIENT_ROOT, asked)]
    assert [one.Status for one in answers] == [0xFF01, 0xFF01, 0x0000]


# --- C-GET -------------------------------------------------------------------------------


def got(
    place: Place, name: str, asked: Dataset, model: str = PATIENT_ROOT
) -> tuple[Dataset, Dataset | None, list[tuple[str, str]]]:
    """The final response, its identifier, and whose instances came."""
    contexts = [(uid, EXPLICIT_LITTLE) for uid in CLASSES.values()]
    responses, arrived = raw_peer.get(place.port, model, asked, contexts, ae_title=name)
    read = [read_dataset(BytesIO(one.data_set), False, True) for one in arrived]
    names = sorted((str(one.PatientName)[3:], str(one.SOPInstanceUID)) for one in read)
    return *responses[-1], names


@pytest.mark.parametrize("name", CALLERS)
def test_get_delivers_what_is_visible_and_no_more(place: Place, name: str) -> None:
    nothing, _, _ = got(place, name, question(name, "STUDY", StudyInstanceUID="1.404"), STUDY_ROOT)
    for study in sorted({one.study for one in HELD}):
        some = [one for one in seen_by(name) if one.study == study]
        dense = [one.uid for one in some if name == "READ_MR" and (one.rows or 0) > 256]
        asked = question(name, "STUDY", StudyInstanceUID=study)
        last, failed, arrived = got(place, name, asked, STUDY_ROOT)
        if len({one.registrant for one in some}) > 1:
            assert (last.Status, last.OffendingElement) == (0xA900, 0x00100021)
            assert arrived == []
            continue
        wanted = sorted((one.registrant, one.uid) for one in some if one.uid not in dense)
        assert arrived == wanted
        assert last.NumberOfFailedSuboperations == len(dense)
        if dense:
            assert last.Status == 0xB000
            assert failed is not None
            assert listed(failed.FailedSOPInstanceUIDList) == set(dense)
        elif not some:
            assert last == nothing, "as if it did not exist"


@pytest.mark.parametrize(
    ("name", "keys", "owners"),
    [
        ("READ_A", {"PatientID": "P1"}, "a"),
        ("READ_1", {"PatientID": "P1"}, "b"),
        ("PERSON", {"PatientID": "P1"}, "b"),
        ("READ_ALL", {"PatientID": "P1"}, None),
        ("READ_ALL", {"PatientID": "P1", "IssuerOfPatientID": "ISSUER_b"}, "b"),
        ("READ_1", {"PatientID": "P1", "IssuerOfPatientID": "ISSUER_a"}, ""),
        ("READ_MR", {"PatientID": "P1"}, None),
        ("READ_MR", {"PatientID": "P1", "IssuerOfPatientID": "ISSUER_a"}, "a"),
    ],
)
def test_a_patient_id_is_one_patients_or_ambiguous(
    place: Place, name: str, keys: dict[str, str], owners: str | None
) -> None:
    last, _, arrived = got(place, name, question(name, "PATIENT", **keys))
    if owners is None:
        assert (last.Status, arrived) == (0xA900, [])
        return
    some = [one for one in seen_by(name) if one.patient == "P1" and one.registrant == owners]
    allowed = [one for one in some if name != "READ_MR" or (one.rows or 0) <= 256]
    assert arrived == sorted((one.registrant, one.uid) for one in allowed)


def test_what_is_denser_than_the_purpose_allows_is_found_and_fails(place: Place) -> None:
    above = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.2"}
    with asking(place, "READ_MR") as association:
        asked = question("READ_MR", "IMAGE", SOPInstanceUID="", Rows="", **above)
        answers = raw_peer.matches(association, STUDY_ROOT, asked)
    assert {one.SOPInstanceUID: one.Rows for one in answers} == {"1.1.2.1": 256, "1.1.2.2": 512}
    asked = question("READ_MR", "IMAGE", SOPInstanceUID="1.1.2.2", **above)
    last, failed, arrived = got(place, "READ_MR", asked, STUDY_ROOT)
    assert (last.Status, last.NumberOfFailedSuboperations, arrived) == (0xA702, 1, [])
    assert failed is not None
    assert failed.FailedSOPInstanceUIDList == "1.1.2.2"
    said = place.audited("delivery-withheld")[-1]
    assert said["sop_instance_uids"] == ["1.1.2.2"]
    assert (said["purpose"], said["max_matrix"], said["ae_title"]) == ("research", 256, "READ_MR")
    assert "density" in said["cause"]


# --- C-MOVE ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["A_CT", "READ_1", "READ_MR"])
def test_move_sends_what_is_visible(place: Place, name: str) -> None:
    taken = raw_peer.Taken()
    contexts = [(uid, [EXPLICIT_LITTLE]) for uid in CLASSES.values()]
    with raw_peer.receiving(contexts, taken) as port:
        place.archive.peers.add(ADMIN, "DEST", "127.0.0.1", port)
        place.archive.snapshots.newest()
        with asking(place, name) as association:
            studies = sorted({one.study for one in HELD})
            asked = question(name, "STUDY", StudyInstanceUID=studies)
            *_, (last, _) = raw_peer.move(association, STUDY_ROOT, asked, "DEST")
    some = [one for one in seen_by(name) if name != "READ_MR" or (one.rows or 0) <= 256]
    if len({one.registrant for one in seen_by(name) if one.study == "1.1"}) > 1:
        assert last.Status == 0xA900
        return
    assert sorted(one.sop_instance_uid for one in taken.instances) == sorted(x.uid for x in some)
    dense = len(seen_by(name)) - len(some)
    assert (last.Status, last.NumberOfFailedSuboperations) == (0xB000 if dense else 0, dense)


def test_a_destination_of_others_is_one_that_does_not_exist(place: Place) -> None:
    place.archive.peers.add(ADMIN, "THEIRS", "127.0.0.1", 1)
    place.archive.snapshots.newest()
    refusals = []
    with asking(place, "A_CT") as association:
        for destination in ("THEIRS", "NOBODY"):
            asked = question("A_CT", "STUDY", StudyInstanceUID="1.4")
            ((answer, told),) = raw_peer.move(
                association, STUDY_ROOT, asked, destination, message_id=7
            )
            assert answer.Status == 0xA801
            assert not told
            refusals.append(answer)
    assert refusals[0] == refusals[1]
    causes = {one["destination"]: one["cause"] for one in place.audited("destination-refused")}
    assert causes["THEIRS"] == "not among the caller's destinations"
    assert causes["NOBODY"] == "no such peer"


# --- DCMTK -------------------------------------------------------------------------------


def dcmtk(place: Place, tool: str, name: str, *options: str, purpose: str | None = None) -> str:
    """Run a tool with its question in a file: DCMTK names no private key on the command line."""
    asked = identifier("STUDY", StudyInstanceUID="1.1", NumberOfStudyRelatedInstances="")
    if purpose is not None:
        asked = question(name, "STUDY", purpose, StudyInstanceUID="1.1",
                         NumberOfStudyRelatedInstances="")  # fmt: skip
    file = place.folder / f"question-{new_object_id()}.dcm"
    asked.save_as(file, implicit_vr=False, little_endian=True)
    said = run(tool, "-v", "-S", "-aet", name, "-aec", "PACS", *options,
               "127.0.0.1", str(place.port), str(file))  # fmt: skip
    return said.text


def test_dcmtk_finds_what_it_may(place: Place, peer_tool: Tool) -> None:
    for name, purpose, answers in (("A_CT", None, 1), ("READ_ALL", None, 2), ("READ_1", None, 0),
                                   ("READ_MR", None, 2), ("READ_MR", "research", 1)):  # fmt: skip
        text = dcmtk(place, peer_tool("findscu"), name, purpose=purpose)
        assert text.count("(Pending)") == answers, text
    assert "[2 ]" in text, "two MR images of a study that holds more"
    assert "[research]" in text


def test_dcmtk_gets_what_it_may(place: Place, peer_tool: Tool, tmp_path: Path) -> None:
    for name, purpose, uids in (("B_CT", None, {"1.1.1.1"}), ("READ_1", None, set()),
                                ("READ_MR", "research", {"1.1.2.1"})):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        dcmtk(place, peer_tool("getscu"), name, "-od", str(folder), purpose=purpose)
        files = [dcmread(one, force=True) for one in folder.iterdir()]
        assert {str(one.SOPInstanceUID) for one in files} == uids


def test_dcmtk_moves_what_it_may_to_where_it_may(place: Place, peer_tool: Tool) -> None:
    movescu = peer_tool("movescu")
    with storescp(peer_tool, place.folder / "moved") as receiver:
        place.archive.peers.add(ADMIN, "DEST", "127.0.0.1", receiver.port)
        place.archive.peers.add(ADMIN, "THEIRS", "127.0.0.1", receiver.port)
        place.archive.snapshots.newest()
        dcmtk(place, movescu, "READ_MR", "-aem", "DEST", purpose="research")
        (moved,) = receiver.taken()
        assert dcmread(moved).SOPInstanceUID == "1.1.2.1"
        text = dcmtk(place, movescu, "A_CT", "-aem", "THEIRS")
        assert "MoveDestinationUnknown" in text, text
        assert receiver.taken() == []
