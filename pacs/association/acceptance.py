"""What an association is accepted with: contexts and items in pynetdicom's words, files for C-STORE.

Owns the translation between pynetdicom's negotiation items and ``negotiation``,
and the provenance of what is stored. PS3.7 Annex D.3, PS3.8 Section 9.3.3.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext

from pacs.association.admission import APPLICATION_CONTEXT, Host
from pacs.association.commands import text
from pacs.association.negotiation import (
    Agreed,
    Agreement,
    Proposed,
    Roles,
    answer_extended,
    negotiate,
)
from pacs.core.caller import Caller
from pacs.core.identifiers import (
    AETitle,
    SOPClassUID,
    SOPInstanceUID,
    TransferSyntaxUID,
    is_uid,
)
from pacs.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.core.ports import Incoming, Spool
from pacs.core.records import IncomingMeta, Provenance

Item = TypeVar("Item")

ANSWERED_IDENTITIES = frozenset({3, 4, 5})
"""Kerberos, SAML and JWT; the Server Response to a user name, with or without passcode, is empty."""


def items(primitive: A_ASSOCIATE, kind: type[Item]) -> list[Item]:
    """List the user information items of one kind, in the order sent."""
    return [one for one in primitive.user_information if isinstance(one, kind)]


def max_length(primitive: A_ASSOCIATE) -> int:
    """Maximum Length the peer receives (PS3.8 Annex D.1); 0 is unlimited."""
    sent = items(primitive, MaximumLengthNotification)
    return int(sent[0].maximum_length_received or 0) if sent else 0


def ourselves(max_pdu_bytes: int) -> list[Any]:
    """The items by which we present ourselves on every association. PS3.7 Annex D.3.3.1, D.3.3.2."""
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]


def role_item(sop_class_uid: str, roles: Roles) -> SCP_SCU_RoleSelectionNegotiation:
    """Make an SCP/SCU Role Selection item. PS3.7 Annex D.3.3.4."""
    item = SCP_SCU_RoleSelectionNegotiation()
    item.sop_class_uid, item.scu_role, item.scp_role = sop_class_uid, roles.scu, roles.scp
    return item


def roles_of(primitive: A_ASSOCIATE) -> dict[str, Roles]:
    """Read the role items of either side."""
    return {
        str(one.sop_class_uid): Roles(scu=bool(one.scu_role), scp=bool(one.scp_role))
        for one in items(primitive, SCP_SCU_RoleSelectionNegotiation)
    }


def agree(request: A_ASSOCIATE, host: Host, caller: Caller) -> Agreement:
    """Decide on what the peer proposed."""
    proposed = [
        Proposed(
            context_id=int(one.context_id or 0),
            abstract_syntax=str(one.abstract_syntax),
            transfer_syntaxes=tuple(str(syntax) for syntax in one.transfer_syntax),
        )
        for one in request.presentation_context_definition_list
    ]
    return negotiate(
        proposed,
        roles_of(request),
        offers=host.services.offers,
        order=host.settings.dicom.transfer_syntax_order,
        caller=caller,
    )


def extended(request: A_ASSOCIATE, agreement: Agreement, host: Host) -> Mapping[str, bytes]:
    """Answer SOP Class Extended Negotiation."""
    asked = {
        str(one.sop_class_uid): one.service_class_application_information or b""
        for one in items(request, SOPClassExtendedNegotiation)
    }
    classes = frozenset(one.abstract_syntax for one in agreement.accepted.values())
    return answer_extended(asked, classes, host.services.offers)


def acceptance(
    request: A_ASSOCIATE,
    agreement: Agreement,
    answers: Mapping[str, bytes],
    *,
    max_pdu_bytes: int,
    identity_response: bytes | None = None,
) -> bytes:
    """Encode the A-ASSOCIATE-AC. A verified User Identity is answered where the peer asks for it."""
    answer = A_ASSOCIATE()
    answer.application_context_name = APPLICATION_CONTEXT
    answer.calling_ae_title = request.calling_ae_title
    answer.called_ae_title = request.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = [
        _context(one) for one in agreement.contexts
    ]
    information = ourselves(max_pdu_bytes)
    information += [role_item(uid, roles) for uid, roles in agreement.roles.items()]
    if items(request, AsynchronousOperationsWindowNegotiation):
        window = AsynchronousOperationsWindowNegotiation()
        window.maximum_number_operations_invoked = 1
        window.maximum_number_operations_performed = 1
        information.append(window)
    for uid, application_information in answers.items():
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid = uid
        item.service_class_application_information = application_information
        information.append(item)
    information += _identity(request, identity_response)
    answer.user_information = information
    return bytes(A_ASSOCIATE_AC(answer).encode())


def _identity(request: A_ASSOCIATE, response: bytes | None) -> list[UserIdentityNegotiation]:
    """Answer a verified User Identity where the peer asks for it. PS3.7 Annex D.3.3.7.2."""
    asked = items(request, UserIdentityNegotiation)
    if response is None or not asked or not asked[0].positive_response_requested:
        return []
    item = UserIdentityNegotiation()
    item.server_response = response if asked[0].user_identity_type in ANSWERED_IDENTITIES else b""
    return [item]


def _context(agreed: Agreed) -> PresentationContext:
    context = PresentationContext()
    context.context_id = agreed.context_id
    context.abstract_syntax = agreed.abstract_syntax
    context.add_transfer_syntax(agreed.transfer_syntax)
    context.result = agreed.result
    return context


class StoreOpener:
    """Begins the file of each C-STORE that names what it brings."""

    def __init__(
        self, *, spool: Spool, association: str, caller: Caller, called_ae_title: AETitle
    ) -> None:
        self._spool = spool
        self._association = association
        self._caller = caller
        self._called_ae_title = called_ae_title

    def __call__(self, context: Agreed, command: Mapping[str, object]) -> Incoming | None:
        sop_class_uid = text(command, "AffectedSOPClassUID")
        sop_instance_uid = text(command, "AffectedSOPInstanceUID")
        if sop_class_uid != context.abstract_syntax or not context.as_scp:
            return None
        if not is_uid(sop_instance_uid):
            return None
        meta = IncomingMeta(
            sop_class_uid=SOPClassUID(sop_class_uid),
            sop_instance_uid=SOPInstanceUID(sop_instance_uid),
            transfer_syntax_uid=TransferSyntaxUID(context.transfer_syntax),
            provenance=Provenance(
                registrant=self._caller.registrant,
                issuer_of_patient_id=self._caller.issuer_of_patient_id,
                received_utc=datetime.now(UTC),
                association=self._association,
                source_ae_title=self._caller.ae_title,
                receiving_ae_title=self._called_ae_title,
            ),
        )
        return self._spool.incoming(meta).__enter__()
