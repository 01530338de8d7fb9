"""C-STOREs during our C-GET: taken before they are answered, answered as PS3.4 Table B.2-1 says."""

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage

from config.settings import Association
from pacs.association.answering import Landings
from pacs.association.negotiation import Agreed
from pacs.association.requested import RetrieveResponse
from pacs.association.requestor import Proposal, associate
from pacs.core import errors
from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from pacs.core.records import Peer
from tests.poll_peer import FakePeer
from tests.polling import image

GET = "1.2.840.10008.5.1.4.1.2.2.3"
EXPLICIT = "1.2.840.10008.1.2.1"
BOUNDS = Association(dimse_timeout_s=10, artim_timeout_s=5)


class Taken:
    """A receiver that remembers, and fails when told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.said: list[str] = []
        self.largest = self.bytes = 0

    def __call__(
        self, sop_class: SOPClassUID, instance: SOPInstanceUID, syntax: TransferSyntaxUID
    ) -> "Taken":
        self.said.append(f"begin {sop_class == CTImageStorage} {syntax == EXPLICIT}")
        self.bytes = 0
        return self

    def write(self, piece: memoryview) -> None:
        self.bytes += len(piece)
        self.largest = max(self.largest, len(piece))

    def take(self) -> None:
        self.said.append("take")
        if self.failure is not None:
            raise self.failure

    def __exit__(self, *exc_info: object) -> None:
        self.said.append("left")


def got(peer: FakePeer, receiver: Taken) -> list[RetrieveResponse]:
    proposals = [
        Proposal(sop_class_uid=GET, transfer_syntax_uids=(EXPLICIT,)),
        Proposal(sop_class_uid=CTImageStorage, transfer_syntax_uids=(EXPLICIT,), scp_role=True),
    ]
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", peer.images[0].StudyInstanceUID
    with peer.listening() as port:
        named = Peer(ae_title=AETitle("PEER"), host="127.0.0.1", port=port)
        with associate(named, proposals, ae_title="PACS", bounds=BOUNDS) as requested:
            return list(requested.get(GET, asked, receiver))


@pytest.fixture
def peer() -> FakePeer:
    return FakePeer(images=[image("1.2.3", "1.2.3.4", PixelData=bytes(1_000_000))])


def test_an_instance_streams_and_is_taken_and_left(peer: FakePeer) -> None:
    receiver = Taken()
    last = got(peer, receiver)[-1]
    assert receiver.said == ["begin True True", "take", "left"]
    assert (last.status, last.progress.completed) == (0x0000, 1)
    assert receiver.bytes > 1_000_000
    assert receiver.largest <= BOUNDS.max_pdu_bytes


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (errors.CapacityExhausted(), 0xA700),
        (errors.InstanceTooLarge(), 0xA700),
        (errors.RecordsFailed(), 0xA700),
        (errors.StorageFailed(), 0xA700),
        (errors.SOPClassMismatch(), 0xA900),
        (errors.SOPInstanceMismatch(), 0xA900),
        (errors.InstanceTruncated(), 0xC000),
        (errors.InstanceIncomplete(), 0xC000),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_what_is_not_kept_is_no_success_and_the_rest_goes_on(
    peer: FakePeer, failure: errors.PacsError, status: int
) -> None:
    peer.images.append(image("1.2.3", "1.2.3.4"))
    receiver = Taken(failure)
    last = got(peer, receiver)[-1]
    assert receiver.said == ["begin True True", "take", "left"] * 2
    assert last.progress.failed == 2
    assert peer.answers == [status, status]


@pytest.mark.parametrize(
    ("sop_class", "instance", "begins"),
    [
        (CTImageStorage, "1.2.3", True),
        (MRImageStorage, "1.2.3", False),
        (CTImageStorage, "../1.2.3", False),
        (CTImageStorage, "", False),
    ],
)
def test_nothing_begins_for_what_is_misnamed_or_outside_a_retrieve(
    sop_class: str, instance: str, begins: bool
) -> None:
    landings, receiver = Landings(), Taken()
    context = Agreed(
        context_id=3,
        abstract_syntax=CTImageStorage,
        result=0,
        transfer_syntax=EXPLICIT,
        as_scp=True,
        as_scu=False,
    )
    command = {"AffectedSOPClassUID": sop_class, "AffectedSOPInstanceUID": instance}
    assert landings(context, command) is None
    landings.receiver = receiver
    assert (landings(context, command) is receiver) is begins
