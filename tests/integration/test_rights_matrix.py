"""Every right × every operation of every service class there is: with it, without it, and by whom it is asked.

What is asked is taken from the service classes that are attached, so a new service is in the
matrix from its first day.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, dimse_primitives
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from pacs.app.archive import Archive
from pacs.app.listening import listening
from pacs.app.provided import service_classes
from pacs.association.message import Operation
from pacs.core.caller import Caller, Candidate, Certificate, Right
from pacs.core.contract import Contract, ContractState
from pacs.services.gate import ContractGate
from tests.association_fakes import asked_in, associate_rq, until
from tests.keeping import data_set, encoded, opened
from tests.legitimacy import (
    ALL_RIGHTS,
    FINGERPRINT,
    PASSCODE,
    Book,
    Clock,
    contract,
    device,
    gate_by,
    user,
)
from tests.pynetdicom_hold import hold

NOT_AUTHORIZED = 0x0124
DEVICE, IDENTITY = (1, 1, 3), (1, 1, 1)


class Now(Clock):
    """The real time."""

    def __call__(self) -> datetime:
        return datetime.now(UTC)


class Certified:
    """The gate as it sees peers that have shown a certificate: ``shown``, of any address."""

    def __init__(self, gate: ContractGate) -> None:
        self._gate = gate
        self.allow, self.stands = gate.allow, gate.stands
        self.shown: Certificate | None = None

    def admit(self, candidate: Candidate) -> Caller:
        return self._gate.admit(replace(candidate, certificate=self.shown))


@dataclass(frozen=True)
class Served:
    """An archive behind a gate whose contracts a test writes."""

    archive: Archive
    book: Book
    gate: Certified
    port: int

    def asked(self) -> list[tuple[Operation, str, Right]]:
        """Every operation of every service class, with a SOP Class of it and the right it asks."""
        return [
            (operation, _fitting(operation, one.offers), one.rights[operation])
            for one in service_classes(self.archive)
            for operation in one.operations
        ]

    def write(self, made: Contract) -> None:
        self.book.write(made, device(host="127.0.0.1"), user())


def _fitting(operation: Operation, offers: Any) -> str:
    """A SOP Class of the service, one that is named for the operation where there is one."""
    names = {uid: name for one in offers for uid, name in one.sop_classes.items()}
    ending = operation.value.partition("-")[2]
    return next((uid for uid, name in names.items() if name.endswith(ending)), next(iter(names)))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    book = Book(contract())
    gate = Certified(gate_by(book, clock=Now()))
    home = tmp_path_factory.mktemp("matrix")
    with (
        opened(home, gate=gate, legitimacy__watch_s="0.05") as archive,
        listening(archive) as port,
    ):
        yield Served(archive, book, gate, port)


def signing_in(passcode: str) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = 2
    item.primary_field, item.secondary_field = b"ann", passcode.encode()
    item.positive_response_requested = True
    return item


@contextmanager
def association(
    served: Served, sop_class: str, identity: UserIdentityNegotiation | None = None
) -> Iterator[Any]:
    entity = AE("CT1")
    entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    made = entity.associate(
        "127.0.0.1", served.port, ext_neg=[] if identity is None else [identity]
    )
    if made.is_established:
        hold(made)
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


def rejected(served: Served, sop_class: str, identity: Any = None) -> tuple[int, int, int] | None:
    """How an association is refused; ``None`` where it is not."""
    context = (sop_class, [ExplicitVRLittleEndian])
    return asked_in(served.port, associate_rq(context, calling="CT1", identity=identity))


def status(made: Any, operation: Operation, sop_class: str) -> int:
    """Ask for an operation in the plainest form it has; give its final status."""
    asking = getattr(dimse_primitives, operation.value.replace("-", "_"))()
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", "1.2.3"
    data = BytesIO(encode(identifier, False, True) or b"")
    if operation is Operation.C_STORE:
        data = BytesIO(encoded(data_set("1.2.3", "1.2.3.4", "1.2.3.4.5", SOPClassUID=sop_class)))
    plain = {
        "MessageID": 1,
        "AffectedSOPClassUID": UID(sop_class),
        "AffectedSOPInstanceUID": UID("1.2.3.4.5"),
        "RequestedSOPClassUID": UID(sop_class),
        "RequestedSOPInstanceUID": UID("1.2.3.4.5"),
        "Priority": 2,
        "MoveDestination": "CT1",
        "EventTypeID": 1,
        "ActionTypeID": 1,
        **dict.fromkeys(("DataSet", "Identifier", "EventInformation", "ActionInformation"), data),
        **dict.fromkeys(("AttributeList", "ModificationList"), data),
    }
    for keyword, value in plain.items():
        if hasattr(asking, keyword):
            setattr(asking, keyword, value)
    (context,) = made.accepted_contexts
    made.dimse.send_msg(asking, context.context_id)
    while True:
        _, answer = made.dimse.get_msg(block=True)
        assert answer is not None, f"{operation.value} was not answered"
        if answer.Status not in (0xFF00, 0xFF01):
            found: int = answer.Status
            return found


def test_each_operation_is_had_with_its_right_and_with_no_other(served: Served) -> None:
    for operation, sop_class, needed in served.asked():
        for right in Right:
            served.write(contract(rights=frozenset({right})))
            with association(served, sop_class) as made:
                granted = status(made, operation, sop_class) != NOT_AUTHORIZED
            # To connect is granted by admission itself: whoever is in may do that much.
            assert granted == (needed in (right, Right.CONNECT)), (operation, right)


def test_a_right_comes_and_goes_on_an_association_that_is_open(served: Served) -> None:
    for operation, sop_class, needed in served.asked():
        if needed is Right.CONNECT:
            continue
        served.write(contract())
        with association(served, sop_class) as made:
            assert status(made, operation, sop_class) != NOT_AUTHORIZED, operation
            served.write(contract(rights=ALL_RIGHTS - {needed}))
            assert status(made, operation, sop_class) == NOT_AUTHORIZED, operation
            served.write(contract())
            assert status(made, operation, sop_class) != NOT_AUTHORIZED, operation


def test_whose_contract_is_suspended_is_shown_out_and_not_let_in_again(served: Served) -> None:
    for _, sop_class, _ in served.asked():
        served.write(contract())
        with association(served, sop_class, signing_in(PASSCODE)) as made:
            assert made.is_established and made.acceptor.user_identity.server_response == b""
            served.write(contract(state=ContractState.SUSPENDED))
            assert until(lambda made=made: made.dul.is_alive() is False)
            made.kill()
        assert rejected(served, sop_class) == DEVICE
        assert rejected(served, sop_class, signing_in(PASSCODE)) == IDENTITY


def test_from_a_wrong_address_nobody_is_let_in(served: Served) -> None:
    served.write(contract())
    served.book.write(device(networks=("10.0.0.0/8",)))
    for _, sop_class, _ in served.asked():
        assert rejected(served, sop_class) == DEVICE
        assert rejected(served, sop_class, signing_in(PASSCODE)) == DEVICE


def test_with_a_wrong_passcode_nobody_is_let_in(served: Served) -> None:
    served.write(contract())
    (operation, sop_class, _), *_ = served.asked()
    with association(served, sop_class, signing_in(PASSCODE)) as made:
        assert status(made, operation, sop_class) == 0
    assert rejected(served, sop_class, signing_in("wrong")) == IDENTITY


@pytest.mark.parametrize(
    ("fingerprint", "valid_s", "answer"),
    [(FINGERPRINT, 60, None), (FINGERPRINT, -60, DEVICE), ("cd" * 32, 60, DEVICE)],
)
def test_a_certificate_counts_while_it_is_the_device_s_and_valid(
    served: Served, fingerprint: str, valid_s: int, answer: Any
) -> None:
    served.write(contract())
    served.book.write(device(host="elsewhere.invalid", certificate_fingerprint=FINGERPRINT))
    served.gate.shown = Certificate(
        fingerprint=fingerprint,
        subject="CN=ct1",
        not_after_utc=datetime.now(UTC) + timedelta(seconds=valid_s),
    )
    try:
        for _, sop_class, _ in served.asked():
            assert rejected(served, sop_class) == answer
    finally:
        served.gate.shown = None
    assert rejected(served, sop_class) == DEVICE


def test_the_matrix_covers_what_is_attached(served: Served) -> None:
    asked = {operation for operation, _, _ in served.asked()}
    assert {Operation.C_ECHO, Operation.C_STORE, Operation.C_FIND, Operation.C_MOVE} <= asked
    assert len({needed for _, _, needed in served.asked()}) > 3
