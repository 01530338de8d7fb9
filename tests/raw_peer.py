"""A foreign peer that sends and receives Data Sets as bytes: pynetdicom without pydicom in between.

Used where DCMTK does not know a SOP Class or transfer syntax, or would not
send what a test needs.
"""

import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from tests.pynetdicom_hold import hold

CONTEXTS = 128
QUERY_RETRIEVE = "1.2.840.10008.5.1.4.1.2."
PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1."
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2."
FIND, MOVE, GET = "1", "2", "3"
EXPLICIT_LITTLE, IMPLICIT_LITTLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"

Response = tuple[Dataset, Dataset | None]
"""A response's command set and identifier."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One Data Set as bytes, and what it is announced as."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes = field(repr=False)

    @property
    def context(self) -> tuple[str, str]:
        """The presentation context it needs."""
        return self.sop_class_uid, self.transfer_syntax_uid


@contextmanager
def associated(
    port: int,
    contexts: Iterable[tuple[str, Sequence[str]]],
    *,
    received: Callable[[Any], int] | None = None,
    scp_roles: Sequence[str] | None = None,
    extended: Sequence[tuple[str, bytes]] = (),
    ae_title: str = "RAWPEER",
    tls: ssl.SSLContext | None = None,
) -> Iterator[Association]:
    """Associate, encrypted if told so; with ``received`` every context is for C-GET: we take the SCP role."""
    entity = AE(ae_title=ae_title)
    entity.maximum_pdu_size = 131_072
    proposed = list(contexts)
    for abstract, syntaxes in proposed:
        entity.add_requested_context(abstract, list(syntaxes))
    items: list[Any] = []
    if received is not None:
        storage = {one for one, _ in proposed if not one.startswith(QUERY_RETRIEVE)}
        items += [build_role(one, scp_role=True) for one in scp_roles or sorted(storage)]
    for uid, information in extended:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid, item.service_class_application_information = uid, information
        items.append(item)
    handlers: Any = [(evt.EVT_C_STORE, received)] if received else []
    association = entity.associate(
        "127.0.0.1",
        port,
        ext_neg=items,
        evt_handlers=handlers,
        tls_args=(tls, "localhost") if tls else None,
    )
    assert association.is_established, "the association was not accepted"
    assert association.dul.socket is not None and association.dul.socket.socket is not None
    association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    hold(association)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(port: int, instances: Iterable[Instance]) -> list[int | None]:
    """Store each instance; give the status of each, ``None`` where its context was not accepted."""
    waiting = list(instances)
    contexts = list(dict.fromkeys(one.context for one in waiting))
    assert len(contexts) <= CONTEXTS
    with associated(port, [(one, [syntax]) for one, syntax in contexts]) as association:
        return [store(association, one) for one in waiting]


def store(
    association: Association, instance: Instance, *, data_set: bytes | None = None
) -> int | None:
    """Store one instance as it is, on an open association."""
    accepted = [
        one.context_id
        for one in association.accepted_contexts
        if (one.abstract_syntax, one.transfer_syntax[0]) == instance.context
    ]
    return _stored(association, accepted[0], instance) if accepted else None


def _stored(association: Association, context_id: int | None, instance: Instance) -> int | None:
    assert context_id is not None
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = instance.sop_class_uid
    request.AffectedSOPInstanceUID = instance.sop_instance_uid
    request.Priority = 2
    request.DataSet = BytesIO(instance.data_set)
    association.dimse.send_msg(request, context_id)
    _, response = association.dimse.get_msg(block=True)
    assert response is not None, "no answer to C-STORE"
    status: int | None = response.Status
    return status


@dataclass
class Taken:
    """What a receiving handler was given."""

    instances: list[Instance] = field(default_factory=list)
    originators: list[tuple[str | None, int | None]] = field(default_factory=list)
    status: int = 0x0000

    def __call__(self, event: Any) -> int:
        request = event.request
        self.originators.append(
            (
                request.MoveOriginatorApplicationEntityTitle,
                request.MoveOriginatorMessageID,
            )
        )
        self.instances.append(
            Instance(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                data_set=request.DataSet.getvalue(),
            )
        )
        return self.status


@contextmanager
def receiving(
    contexts: Iterable[tuple[str, Sequence[str]]], taken: Any, port: int = 0
) -> Iterator[int]:
    """Listen as a Storage SCP; give the port."""
    entity = AE(ae_title="RAWDEST")
    for abstract, syntaxes in contexts:
        entity.add_supported_context(abstract, list(syntaxes))
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, taken)]
    )
    assert server is not None
    assert server.socket is not None
    unrestricted = _config.UNRESTRICTED_STORAGE_SERVICE
    _config.UNRESTRICTED_STORAGE_SERVICE = True  # private SOP Classes too
    try:
        yield server.socket.getsockname()[1]
    finally:
        _config.UNRESTRICTED_STORAGE_SERVICE = unrestricted
        ours = server.active_associations  # others in this process are not waited for
        server.shutdown()
        for one in ours:
            one.join(60)


def find(association: Association, model: str, identifier: Dataset) -> list[Response]:
    """Ask one question; give all responses."""
    return list(association.send_c_find(identifier, model + FIND))


def matches(association: Association, model: str, identifier: Dataset) -> list[Dataset]:
    """Ask one question that must succeed; give the identifiers of its matches."""
    *pending, last = find(association, model, identifier)
    assert last[0].Status == 0x0000, f"{last[0].Status:04X}"
    return [one for _, one in pending if one is not None]


def get(
    port: int,
    model: str,
    identifier: Dataset,
    contexts: Iterable[tuple[str, str]],
    taken: Taken | None = None,
    *,
    ae_title: str = "RAWPEER",
) -> tuple[list[Response], list[Instance]]:
    """Retrieve by C-GET in these (SOP Class, syntax) contexts."""
    received = taken or Taken()
    proposed = [(model + GET, [IMPLICIT_LITTLE])]
    proposed += [(one, [syntax]) for one, syntax in dict.fromkeys(contexts)]
    with associated(port, proposed, received=received, ae_title=ae_title) as association:
        responses = list(association.send_c_get(identifier, model + GET))
    return responses, received.instances


def move(
    association: Association,
    model: str,
    identifier: Dataset,
    destination: str,
    *,
    message_id: int = 1,
) -> list[Response]:
    """Have the archive send; give all responses."""
    return list(association.send_c_move(identifier, destination, model + MOVE, msg_id=message_id))


def identifier(level: str, **keys: Any) -> Dataset:
    """Make an identifier."""
    one = Dataset()
    one.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(one, keyword, value)
    return one
