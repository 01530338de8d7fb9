"""Peers that are told of events, and an extension that has some to tell."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

from pacs.app.archive import Archive
from pacs.app.extension import Attached, Extension
from pacs.association.message import Offer, Operation, Request, Response
from pacs.core.caller import Right
from pacs.core.events import Addressee, Event
from pacs.core.identifiers import AETitle, Registrant, SOPClassUID, SOPInstanceUID
from pacs.services.outbox import event_information
from scp.service_class import ServiceClass
from tests.pynetdicom_hold import hold

COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
SLOW_FIND = "1.2.826.0.1.3680043.10.1.2"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
PATIENCE_S = 60.0
QUICK = {
    "outbox__poll_s": "0.1",
    "outbox__grace_s": "0.5",
    "outbox__retry_s": "0.2",
    "outbox__max_retry_s": "0.5",
}


def event_for(ae_title: str, number: int = 1, *, registrant: str = "local", **more: Any) -> Event:
    """Make a Storage Commitment result, PS3.4 Table J.3-2, that carries a number."""
    information = Dataset()
    information.TransactionUID = f"1.2.{number}"
    values: dict[str, Any] = {
        "addressee": Addressee(ae_title=AETitle(ae_title), registrant=Registrant(registrant)),
        "sop_class_uid": SOPClassUID(COMMITMENT),
        "sop_instance_uid": SOPInstanceUID(COMMITMENT_INSTANCE),
        "event_type_id": 1,
        "information": event_information(information),
    }
    return Event(**{**values, **more})


class Told:
    """What a peer was told, in order; answers with the statuses it was given, then 0000."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.numbers: list[int] = []
        self.came = threading.Event()
        self.calling: list[str] = []

    def __call__(self, event: Any) -> tuple[int, None]:
        assert str(event.request.AffectedSOPInstanceUID) == COMMITMENT_INSTANCE
        assert event.event_type == 1
        uid = str(event.event_information.TransactionUID)
        self.numbers.append(int(uid.rpartition(".")[2]))
        self.calling.append(event.assoc.requestor.ae_title)
        self.came.set()
        return self._statuses.pop(0) if self._statuses else 0x0000, None


@contextmanager
def calling(
    port: int,
    told: Callable[[Any], Any],
    *,
    ae_title: str = "MODALITY",
    called: str = "PACS",
    contexts: Sequence[str] = (COMMITMENT, SLOW_FIND),
    roles: Sequence[Any] = (),
) -> Iterator[Association]:
    """Associate as a device that waits to be told something."""
    entity = AE(ae_title=ae_title)
    for one in contexts:
        entity.add_requested_context(one, [IMPLICIT])
    association = entity.associate(
        "127.0.0.1",
        port,
        ae_title=called,
        ext_neg=list(roles),
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, told)],
    )
    assert association.is_established
    connection = association.dul.socket.socket
    hold(association)
    try:
        yield association
    finally:
        # Serving an N-EVENT-REPORT, pynetdicom forgets that its reading thread is held.
        association._is_paused = True
        if association.is_established:
            association.release()
        if not association.is_released:
            connection.close()  # pynetdicom forgets one that was reset


@contextmanager
def listening_peer(
    told: Callable[[Any], Any], *, lets_us_report: bool = True, port: int = 0
) -> Iterator[int]:
    """Listen as a device that is told on an association of the archive's; give the port."""
    entity = AE(ae_title="MODALITY")
    roles = {"scu_role": False, "scp_role": True} if lets_us_report else {}
    entity.add_supported_context(COMMITMENT, [EXPLICIT], **roles)
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, told)]
    )
    assert server is not None and server.socket is not None
    try:
        yield server.socket.getsockname()[1]
    finally:
        ours = server.active_associations  # others in this process are not waited for
        server.shutdown()
        for one in ours:
            one.join(PATIENCE_S)


def turned() -> Any:
    """Ask for the role of the SCP: the archive is the SCU then, and has nothing to report."""
    return build_role(COMMITMENT, scu_role=False, scp_role=True)


class Reporter:
    """An extension with Storage Commitment that reports at once, and a C-FIND that takes its time."""

    def __init__(self) -> None:
        self.let_find_end = threading.Event()
        self.pending = 0
        self.archive: Archive | None = None

    def extension(self) -> Extension:
        return Extension(name="reporter", attach=self._attach)

    def _attach(self, archive: Archive, _: object) -> Attached:
        self.archive = archive
        offer = Offer(sop_classes={COMMITMENT: "Toy Commitment"}, scu_role=True)
        commitment = ServiceClass(
            name="Toy Commitment",
            standard="PS3.4 Annex J",
            offers=(offer,),
            operations={Operation.N_ACTION: self._act},
            rights={Operation.N_ACTION: Right.CONNECT},
        )
        find = ServiceClass(
            name="Slow",
            standard="private",
            offers=(Offer(sop_classes={SLOW_FIND: "Slow"}),),
            operations={Operation.C_FIND: self._find},
            rights={Operation.C_FIND: Right.CONNECT},
        )
        return Attached(service_classes=(commitment, find))

    def _act(self, request: Request) -> Iterator[Response]:
        assert self.archive is not None and request.identifier is not None
        with self.archive.records.transaction() as unit:
            unit.post(
                Event(
                    addressee=Addressee(
                        ae_title=request.caller.ae_title, registrant=request.caller.registrant
                    ),
                    sop_class_uid=SOPClassUID(COMMITMENT),
                    sop_instance_uid=SOPInstanceUID(COMMITMENT_INSTANCE),
                    event_type_id=1,
                    information=event_information(request.identifier),
                )
            )
        yield Response(status=0x0000)

    def _find(self, request: Request) -> Iterator[Response]:
        end_s = time.monotonic() + PATIENCE_S
        while not self.let_find_end.is_set() and time.monotonic() < end_s:
            match = Dataset()
            match.PatientID = str(self.pending)
            self.pending += 1
            yield Response(status=0xFF00, identifier=match)
            time.sleep(0.02)
        yield Response(status=0x0000 if self.let_find_end.is_set() else 0xC001)
