"""The requestor's rules that need no foreign peer: proposals, message ids, files, back-pressure."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from config.settings import Association
from pacs.association.commands import LAST_MESSAGE_ID
from pacs.association.exchange import Exchange
from pacs.association.landing import Landing
from pacs.association.requestor import MAX_CONTEXTS, NothingAccepted, Proposal, associate
from pacs.association.upper_layer import UpperLayer
from pacs.core.errors import InstanceIncomplete, InstanceTooLarge, PeerRefused, PeerUnreachable
from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from pacs.core.records import Originator, Payload, Peer, SendOutcome
from scu.files import Unsendable, read
from scu.find import find
from scu.get import COMMON_SOP_CLASSES, TRANSFER_SYNTAXES, storage_proposals
from scu.models import STUDY_ROOT_FIND
from scu.store import StoreSCU, batches

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"


def payload(number: int, *, sop_class: str = CT, syntax: str = EXPLICIT) -> Payload:
    return Payload(
        sop_class_uid=SOPClassUID(sop_class),
        sop_instance_uid=SOPInstanceUID(f"1.2.{number}"),
        transfer_syntax_uid=TransferSyntaxUID(syntax),
        path=f"/nowhere/{number}",
        offset=0,
    )


@contextmanager
def scp(handlers: list[evt.EventHandlerType], *sop_classes: str) -> Iterator[Peer]:
    """Run pynetdicom's own SCP in this process."""
    entity = AE(ae_title="THEIRS")
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        contexts=[build_context(one, EXPLICIT) for one in sop_classes],
        evt_handlers=handlers,
    )
    assert server is not None
    try:
        yield Peer(ae_title=AETitle("THEIRS"), host="127.0.0.1", port=server.server_address[1])
    finally:
        ours = server.active_associations
        server.shutdown()
        for one in ours:
            one.join(10)
        assert [one for one in ours if one.is_alive()] == [], "tests that follow would meet it"


def proposal(sop_class: str) -> Proposal:
    return Proposal(sop_class_uid=sop_class, transfer_syntax_uids=(EXPLICIT,))


def test_batch_holds_at_most_128_contexts() -> None:
    syntaxes = [f"1.2.840.10008.1.2.4.{number}" for number in range(50, 100)]
    wanted = [
        payload(number, sop_class=f"1.2.3.{number % 7}", syntax=syntaxes[number % 50])
        for number in range(700)
    ]
    made = batches(wanted)
    assert sorted(one.path for batch in made for one in batch) == sorted(w.path for w in wanted)
    assert len(made) == 3
    for batch in made:
        classes = {one.sop_class_uid for one in batch}
        stored = {(one.sop_class_uid, one.transfer_syntax_uid) for one in batch}
        assert len(stored) + 2 * len(classes) <= MAX_CONTEXTS


def test_get_offers_every_syntax_apart_while_contexts_last() -> None:
    few = storage_proposals([CT], TRANSFER_SYNTAXES)
    assert [one.transfer_syntax_uids for one in few] == [(one,) for one in TRANSFER_SYNTAXES]
    many = storage_proposals(COMMON_SOP_CLASSES, TRANSFER_SYNTAXES)
    assert [one.sop_class_uid for one in many] == list(COMMON_SOP_CLASSES)
    assert all(one.scp_role for one in few + many)
    assert len(storage_proposals([f"1.2.{n}" for n in range(300)], [EXPLICIT])) == 127


def test_message_ids_stay_in_range_and_spare_the_one_being_served() -> None:
    exchange = Exchange(
        Mock(spec=UpperLayer),
        {},
        bounds=Association(),
        begin_store=lambda context, command: None,
        peer_max_bytes=0,
        first_message_id=0x8000,
    )
    exchange._serving = 3
    issued = [exchange.next_message_id() for _ in range(LAST_MESSAGE_ID - 1)]
    again = exchange.next_message_id()
    assert issued[0] == again == 0x8000
    assert set(issued) == set(range(1, LAST_MESSAGE_ID + 1)) - {3}


def test_number_of_proposals_is_bounded() -> None:
    peer = Peer(ae_title=AETitle("X"), host="127.0.0.1", port=1)
    for count in (0, MAX_CONTEXTS + 1):
        with (
            pytest.raises(ValueError, match="1 to 128"),
            associate(peer, [proposal(CT)] * count, ae_title="US", bounds=Association()),
        ):
            pytest.fail("opened")


def test_peer_that_accepts_nothing_has_refused() -> None:
    with (
        scp([], VERIFICATION) as peer,
        pytest.raises(NothingAccepted, match="none of the presentation contexts"),
        associate(peer, [proposal(CT)], ae_title="US", bounds=Association()),
    ):
        pytest.fail("opened")


def test_class_that_was_not_accepted_is_refused_and_the_association_lives() -> None:
    proposals = [proposal(VERIFICATION), proposal(CT)]
    with (
        scp([], VERIFICATION) as peer,
        associate(peer, proposals, ae_title="US", bounds=Association()) as requested,
    ):
        with pytest.raises(PeerRefused, match="no presentation context"):
            requested.store(payload(1))
        assert requested.accepted(CT) == ()
        assert requested.echo() == 0x0000


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, SendOutcome.SUCCESS),
        (0xB000, SendOutcome.WARNING),
        (0xB006, SendOutcome.WARNING),
        (0xB007, SendOutcome.WARNING),
        (0x0107, SendOutcome.WARNING),
        (0xA700, SendOutcome.FAILURE),
        (0xC000, SendOutcome.FAILURE),
    ],
)
def test_status_becomes_an_outcome_and_the_originator_travels(
    tmp_path: Path, status: int, outcome: SendOutcome
) -> None:
    content = tmp_path / "data-set"
    content.write_bytes(b"ignored!" + b"\x08\x00\x18\x00UI\x04\x001.2\x00")
    one = replace(payload(1), path=str(content), offset=len(b"ignored!"))
    seen: list[tuple[object, ...]] = []

    def take(event: evt.Event) -> int:
        request: Any = event.request
        seen.append(
            (
                request.AffectedSOPInstanceUID,
                request.MoveOriginatorApplicationEntityTitle,
                request.MoveOriginatorMessageID,
                request.DataSet.getvalue(),
            )
        )
        return status

    way = StoreSCU(ae_title="US", bounds=Association())
    offers = [(one.sop_class_uid, (one.transfer_syntax_uid,))]
    with scp([(evt.EVT_C_STORE, take)], CT) as peer, way.open(peer, offers) as delivery:
        sent = delivery.send(one, Originator(ae_title=AETitle("ASKER"), message_id=7))
    assert sent is outcome
    assert seen == [("1.2.1", "ASKER", 7, content.read_bytes()[8:])]


def test_association_is_released_not_aborted() -> None:
    seen: list[str] = []
    ended = threading.Event()

    def note(event: evt.Event) -> None:
        seen.append(event.event.name)
        ended.set()

    with scp([(evt.EVT_RELEASED, note), (evt.EVT_ABORTED, note)], VERIFICATION) as peer:
        with associate(
            peer, [proposal(VERIFICATION)], ae_title="US", bounds=Association()
        ) as requested:
            requested.echo()
        assert ended.wait(10)
    assert seen == ["EVT_RELEASED"]


def test_peer_that_aborts_is_unreachable_at_once() -> None:
    def abort(event: evt.Event) -> int:
        event.assoc.abort(block=False)
        return 0x0000

    bounds = Association(dimse_timeout_s=200)
    with (
        scp([(evt.EVT_C_ECHO, abort)], VERIFICATION) as peer,
        associate(peer, [proposal(VERIFICATION)], ae_title="US", bounds=bounds) as requested,
        pytest.raises(PeerUnreachable, match="has ended"),
    ):
        requested.echo()


def test_cancelled_query_ends_with_the_peers_cancel_status() -> None:
    def endless(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        answer = Dataset()
        answer.StudyInstanceUID = "1.2.3"
        while not event.is_cancelled:
            yield 0xFF00, answer
        yield 0xFE00, None

    with scp([(evt.EVT_C_FIND, endless)], STUDY_ROOT_FIND) as peer:
        question = Dataset()
        question.QueryRetrieveLevel = "STUDY"
        answers = find(peer, question, ae_title="US", bounds=Association(), cancel_after=3)
        statuses = [status for status, _ in answers]
    assert statuses[:3] == [0xFF00] * 3
    assert statuses[-1] == 0xFE00


def landing(folder: Path, *, instance: str = "1.2.3", max_bytes: int = 10) -> Landing:
    return Landing(
        folder,
        sop_class_uid=CT,
        sop_instance_uid=instance,
        transfer_syntax_uid=EXPLICIT,
        max_bytes=max_bytes,
    )


def test_landing_is_named_by_its_uid_and_kept_whole(tmp_path: Path) -> None:
    one = landing(tmp_path)
    one.write(b"01234")
    one.write(b"56789")
    received = one.keep()
    assert received.path == tmp_path / "1.2.3.dcm"
    assert received.path.read_bytes().endswith(b"0123456789")
    assert list(tmp_path.iterdir()) == [received.path]


def test_landing_beyond_its_bound_leaves_nothing(tmp_path: Path) -> None:
    one = landing(tmp_path, max_bytes=9)
    one.write(b"0123456789")
    with pytest.raises(InstanceTooLarge):
        one.keep()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("instance", ["", "../../etc/passwd", "1.2/3", "1.2\x00", "9" * 65])
def test_landing_never_makes_a_path_of_a_peers_string(tmp_path: Path, instance: str) -> None:
    one = landing(tmp_path, instance=instance)
    one.write(b"x")
    with pytest.raises(InstanceIncomplete):
        one.keep()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a DICOM Part 10 file"),
        (b"\x00" * 132, "not a DICOM Part 10 file"),
        (bytes(128) + b"DICM", "no usable Transfer Syntax UID"),
        (bytes(128) + b"DICM\x02\x00\x00\x00\x04\x00\x00\x00aaaa", "damaged File Meta Information"),
        (
            bytes(128) + b"DICM\x02\x00\x01\x00OB\x00\x00\xff\xff\xff\xff",
            "damaged File Meta Information",
        ),
        (
            bytes(128) + b"DICM\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10",
            "a DICOMDIR, not an instance",
        ),
    ],
)
def test_file_that_cannot_be_sent_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    assert list(read([tmp_path])) == [Unsendable(path=path, reason=reason)]
