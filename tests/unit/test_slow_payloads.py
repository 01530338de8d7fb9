"""What takes long to make: whoever asked is told so, and a receiver that left meanwhile is called again."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt

from config.settings import Association, Retrieve
from pacs.association.message import Operation, Request
from pacs.core.errors import PeerLeft
from pacs.core.identifiers import AETitle
from pacs.core.records import Peer, PeerEncoding, Progress
from pacs.services.delivery.fate import Fate
from pacs.services.delivery.shipment import Shipping
from scp import retrieve
from scu.store import StoreSCU
from tests.association_fakes import until
from tests.unit.test_choice import CT, EXPLICIT, J70
from tests.unit.test_shipment import Delivery, Yard, number, outcomes

PENDING, SUCCESS = 0xFF00, 0x0000
ASKED = Dataset()
ASKED.QueryRetrieveLevel, ASKED.StudyInstanceUID = "STUDY", "1.2"


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Callable[[int], Yard]]:
    made: list[Yard] = []

    def make(total: int) -> Yard:
        made.append(Yard(tmp_path, total, J70))
        return made[-1]

    yield make
    for one in made:
        one.transcoder.may_end.set()
        assert one.clean()
        one.shipping.close()


# --- the word to whoever asked -----------------------------------------------------------


class Telling:
    """A retrieve of two instances that takes its time."""

    def move(self, *_: object) -> Iterator[Progress]:
        for remaining in (2, 2, 2, 1, 1, 1, 0, 0):
            yield Progress(remaining=remaining, completed=2 - remaining, failed=0, warning=0)
        yield Progress(remaining=0, completed=2, failed=0, warning=0, over=True)

    get = move


@pytest.mark.parametrize("operation", [Operation.C_MOVE, Operation.C_GET])
@pytest.mark.parametrize(("interval_s", "remaining"), [(0.0, [2, 2, 1, 1, 1]), (3_600.0, [1])])
def test_the_last_pending_response_is_repeated_at_intervals(
    operation: Operation, interval_s: float, remaining: list[int]
) -> None:
    service = retrieve.service_class(
        cast(Any, Telling()), max_uids=10, pending_interval_s=interval_s
    )

    class Open:
        def negotiated(self, sop_class_uid: str) -> bytes:
            return b""

        def delivery(self) -> None:
            """Nothing is sent."""

    request = Request(
        operation=operation,
        sop_class_uid=retrieve.STUDY_ROOT[0],
        transfer_syntax_uid=EXPLICIT,
        message_id=1,
        fields={"MoveDestination": "DEST"},
        caller=cast(Any, Peer(ae_title=AETitle("A"), host="", port=1)),
        called_ae_title=AETitle("PACS"),
        association=cast(Any, Open()),
        cancelled=lambda: False,
        identifier=ASKED,
    )
    *pending, last = service.operations[operation](request)
    assert [one.status for one in pending] == [PENDING] * len(pending)
    assert [one.remaining for one in pending] == remaining
    assert (last.status, last.completed) == (SUCCESS, 2)


@pytest.mark.parametrize("room", [0, 4])
def test_who_gets_is_given_the_word_while_the_next_is_being_made(
    yard: Callable[[int], Yard], room: int
) -> None:
    """Whether it is made ahead, or there is no room and it is made in its turn."""
    here = yard(6)
    here.shipping._ahead.most = room
    here.transcoder.may_end.clear()
    waiting = here.shipping.waiting([(row, CT, J70) for row in range(6)])
    way = here.shipping.way(Delivery(here.peers), waiting, PeerEncoding.AS_STORED)  # type: ignore[arg-type]
    with closing(way):
        sent = way.sent()
        assert [next(sent), next(sent)] == [None, None]
        assert here.peers.came == []
        here.transcoder.may_end.set()
        done = [one for one in sent if one is not None]
    assert [one.fate for one in done] == [Fate.ANSWERED] * 6
    assert here.peers.rows == list(range(6))


def test_who_gives_up_meanwhile_leaves_nothing_behind(yard: Callable[[int], Yard]) -> None:
    here = yard(6)
    here.transcoder.may_end.clear()
    waiting = here.shipping.waiting([(row, CT, J70) for row in range(6)])
    way = here.shipping.way(Delivery(here.peers), waiting, PeerEncoding.AS_STORED)  # type: ignore[arg-type]
    with closing(way):
        assert next(way.sent()) is None
    taken = [waiting.take() for _ in range(6)]
    assert [number(one) for one in taken if one is not None] == list(range(6)), (
        "given back in order"
    )
    here.transcoder.may_end.set()
    assert here.peers.came == []


# --- a receiver that does not wait -------------------------------------------------------


def test_a_receiver_that_left_is_called_once_more_for_each_instance(
    yard: Callable[[int], Yard],
) -> None:
    here, left = yard(8), set[str]()

    def answer(uid: str) -> int:
        if uid[-1] in "0257" and uid not in left:
            left.add(uid)
            raise PeerLeft
        return 0

    here.peers.answer = answer
    done = outcomes(here.shipment())
    assert {(one.fate, one.status) for one in done} == {(Fate.ANSWERED, 0)}
    assert here.peers.rows == list(range(8))
    assert here.peers.opened == 1 + 4


def test_a_receiver_that_never_stays_is_not_called_for_ever(yard: Callable[[int], Yard]) -> None:
    here = yard(8)

    def answer(uid: str) -> int:
        raise PeerLeft

    here.peers.answer = answer
    shipment = here.shipment()
    (one,) = outcomes(shipment)
    assert (one.fate, number(one.held)) == (Fate.UNKNOWN, 0)
    assert here.peers.opened == 2
    assert [number(held) for held in shipment.left()] == list(range(1, 8))


def test_an_idle_association_that_its_peer_ended_is_made_again(
    yard: Callable[[int], Yard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As devices do that wait for a minute: the conversion ends when the peer has gone."""
    here, stored, ended = yard(3), list[str](), threading.Event()
    here.transcoder.may_end.clear()

    def store(event: evt.Event) -> int:
        stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    entity = AE(ae_title="IMPATIENT")
    entity.add_supported_context(CT, EXPLICIT)
    entity.network_timeout = 0.2
    handlers: Any = [(evt.EVT_C_STORE, store), (evt.EVT_CONN_CLOSE, lambda _: ended.set())]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    shipping = Shipping(
        index=here.store,  # type: ignore[arg-type]
        store=here.store,  # type: ignore[arg-type]
        sender=StoreSCU(ae_title="US", bounds=Association()),
        transcoder=here.transcoder,
        settings=Retrieve(),
        processor=None,  # type: ignore[arg-type]
    )
    port = server.server_address[1]
    peer = Peer(ae_title=AETitle("IMPATIENT"), host="127.0.0.1", port=port)
    shipment = shipping.shipment(peer, [(row, CT, J70) for row in range(3)])
    waiter = threading.Thread(target=lambda: ended.wait(30) and here.transcoder.may_end.set())
    waiter.start()
    try:
        done = outcomes(shipment)
    finally:
        waiter.join()
        server.shutdown()
        shipping.close()
    assert ended.is_set()
    assert [(one.fate, one.status) for one in done] == [(Fate.ANSWERED, 0)] * 3
    assert [uid.rpartition(".")[2] for uid in stored] == ["0", "1", "2"]
    assert until(lambda: not list(here.transcoder.folder.iterdir()))
