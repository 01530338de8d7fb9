"""User Identity Negotiation: what a verified identity is answered with, and that no other is. PS3.7 Annex D.3.3.7."""

import pytest
from pynetdicom import AE
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from pacs.core.caller import Candidate
from pacs.core.identifiers import AETitle
from pacs.services.gate import LoopbackGate
from tests.association_fakes import ECHO, IMPLICIT, serving

USERNAME, PASSCODE, KERBEROS, SAML, JWT = 1, 2, 3, 4, 5


def identity(kind: int, *, asks: bool) -> UserIdentityNegotiation:
    one = UserIdentityNegotiation()
    one.user_identity_type = kind
    one.primary_field = b"someone"
    if kind == PASSCODE:
        one.secondary_field = b"secret"
    one.positive_response_requested = asks
    return one


def answered(item: UserIdentityNegotiation | None, verified: bytes | None) -> bytes | None:
    """Associate; give the Server Response, or ``None`` without the sub-item."""
    with serving() as running:
        running.gate.identity_response = verified
        entity = AE("ASKER")
        entity.add_requested_context(ECHO, IMPLICIT)
        association = entity.associate(
            "127.0.0.1", running.port, ext_neg=[] if item is None else [item]
        )
        assert association.is_established
        response = association.acceptor.user_identity
        association.release()
        return None if response is None else response.server_response


@pytest.mark.parametrize("kind", [KERBEROS, SAML, JWT])
def test_a_verified_identity_is_answered_where_the_peer_asks(kind: int) -> None:
    assert answered(identity(kind, asks=True), b"ticket") == b"ticket"


@pytest.mark.parametrize("kind", [USERNAME, PASSCODE])
def test_the_answer_to_a_user_name_is_empty(kind: int) -> None:
    assert answered(identity(kind, asks=True), b"") == b""
    assert answered(identity(kind, asks=True), b"never sent") == b""


def test_nothing_is_answered_unasked() -> None:
    assert answered(identity(PASSCODE, asks=False), b"") is None
    assert answered(None, b"") is None


def test_an_identity_nobody_verified_is_not_said_to_be() -> None:
    assert answered(identity(PASSCODE, asks=True), None) is None


def test_loopback_is_trusted_for_its_address_and_verifies_no_identity() -> None:
    gate = LoopbackGate(loopback_trust=True, issuer_of_patient_id="")
    caller = gate.admit(
        Candidate(
            calling_ae_title=AETitle("ASKER"),
            called_ae_title=AETitle("PACS"),
            address="127.0.0.1",
            port=1,
            user_identity_type=PASSCODE,
            user_identity=b"someone",
            user_passcode=b"anything",
        )
    )
    assert caller.identity_response is None
