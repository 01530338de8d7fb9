"""Legitimacy as peers meet it: DCMTK with user name and passcode, a device that enrols, an archive with its own gate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from pacs.app.archive import Archive
from pacs.app.gate import contract_gate
from pacs.app.listening import listening
from pacs.core.attributes import Level
from pacs.core.caller import Candidate, SubscriberName
from pacs.core.contract import ContractState
from tests.archive import run
from tests.association_fakes import FakeAudit, asked_in, associate_rq
from tests.keeping import data_set, encoded, listed, loaded_for, opened
from tests.legitimacy import PASSCODE, Book, contract, device, user

CT = "1.2.840.10008.5.1.4.1.1.2"
NOT_ADMITTED = {"IDENTITY": "No Reason", "DEVICE": "Calling AE Title Not Recognized"}


class Codes:
    """Enrols whoever knows the code: a pending contract and a device bound to it."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.seen: list[Candidate] = []

    def enrol(self, code: bytes, candidate: Candidate) -> SubscriberName | None:
        if code != b"TULIP":
            return None
        self.seen.append(candidate)
        self.book.write(
            contract("newcomer", state=ContractState.PENDING),
            device(candidate.calling_ae_title, "newcomer", host=candidate.address),
        )
        return SubscriberName("newcomer")


@dataclass(frozen=True)
class Served:
    """An archive behind the gate it makes, over contracts of a test."""

    archive: Archive
    book: Book
    codes: Codes
    audit: FakeAudit
    port: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("legitimacy")
    book, audit = Book(contract(), user()), FakeAudit()
    codes = Codes(book)
    gate = contract_gate(
        home, loaded_for(home).settings, snapshots=book, audit=audit, enrolments=codes
    )
    with opened(home, gate=gate) as archive, listening(archive) as port:
        yield Served(archive, book, codes, audit, port)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "ct.dcm"
    path.write_bytes(encoded(data_set("1.2.3", "1.2.3.4", "1.2.3.4.5", SOPClassUID=CT)))
    return path


def test_storescu_stores_with_its_passcode_and_not_without(
    served: Served, image: Path, peer_tool: Callable[[str], str]
) -> None:
    def send(*identity: str) -> Any:
        peer = ("-aet", "LAPTOP", "127.0.0.1", str(served.port))
        return run(peer_tool("storescu"), "-v", "-xe", "-nh", *identity, *peer, str(image))

    refused = {
        ("-usr", "ann", "-pwd", "wrong"): "IDENTITY",
        ("-usr", "nobody", "-pwd", PASSCODE): "IDENTITY",
        ("-usr", "ann"): "IDENTITY",
        (): "DEVICE",
    }
    for identity, answer in refused.items():
        said = send(*identity)
        assert said.code != 0 and NOT_ADMITTED[answer] in said.text, said.text
    assert listed(served.archive, Level.STUDY) == []
    for more in ((), ("-rsp",)):
        said = send("-usr", "ann", "-pwd", PASSCODE, *more)
        assert said.code == 0, said.text
    assert [one["StudyInstanceUID"] for one in listed(served.archive, Level.STUDY)] == ["1.2.3"]
    rows = served.archive.database.execute("SELECT DISTINCT registrant FROM instance")
    assert [row[0] for row in rows] == ["alpha"]


def enrolling(code: bytes, *, named: bool) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = 1 if named else 2
    item.primary_field = b"enrol:" + code if named else b"enrol"
    if not named:
        item.secondary_field = code
    return item


@pytest.mark.parametrize("named", [False, True])
def test_a_device_introduces_itself_and_works_once_it_is_accepted(
    served: Served, named: bool
) -> None:
    contexts = ((CT, ["1.2.840.10008.1.2.1"]), ("1.2.840.10008.1.1", ["1.2.840.10008.1.2"]))
    title = f"NEW{int(named)}"

    def ask(identity: UserIdentityNegotiation | None) -> Any:
        return asked_in(served.port, associate_rq(*contexts, calling=title, identity=identity))

    assert ask(enrolling(b"ROSE", named=named)) == (1, 1, 1)
    assert ask(enrolling(b"TULIP", named=named)) == (2, 1, 1)
    newcomer = served.codes.seen[-1]
    assert (newcomer.calling_ae_title, newcomer.address) == (title, "127.0.0.1")
    assert newcomer.sop_classes == tuple(uid for uid, _ in contexts)
    assert served.audit.named("enrolment")[-1]["subscriber"] == "newcomer"
    assert ask(None) == (1, 1, 3)
    served.book.write(contract("newcomer"))
    assert ask(None) is None
    assert ask(enrolling(b"TULIP", named=named)) is None  # it need not be told to stop


def test_an_archive_goes_by_the_contracts_it_holds(tmp_path: Path) -> None:
    """Without any, loopback is let in; the gate is the archive's own."""
    with opened(tmp_path) as archive, listening(archive) as port:
        assert asked_in(port, associate_rq()) is None
        assert archive.snapshots.newest().contracts == {}
    with opened(tmp_path, dicom__loopback_trust="false") as archive, listening(archive) as port:
        assert asked_in(port, associate_rq()) == (1, 1, 3)
