"""What an association is accepted with: contexts and items in pynetdicom's words, files for C-STORE.

Owns the translation between pynetdicom's negotiation items and ``negotiation``,
and the provenance of what is stored. PS3.7 Annex D.3, PS3.8 Section 9.3.3.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
)
from pynetdicom.presentation import PresentationContext

from pacs.association.admission import Host
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
from pacs.core.ports import Incoming, Spool
from pacs.core.records import IncomingMeta, Provenance


def agree(association: Association, host: Host) -> Agreement:
    """Decide on what the peer proposed."""
    requestor = association.requestor
    proposed = [
        Proposed(
            context_id=cast(int, one.context_id),
            abstract_syntax=str(one.abstract_syntax),
            transfer_syntaxes=tuple(str(syntax) for syntax in one.transfer_syntax),
        )
        for one in requestor.requested_contexts
    ]
    roles = {
        str(uid): Roles(scu=bool(item.scu_role), scp=bool(item.scp_role))
        for uid, item in requestor.role_selection.items()
    }
    return negotiate(
        proposed,
        roles,
        offers=host.services.offers,
        order=host.settings.dicom.transfer_syntax_order,
    )


def answer(association: Association, agreement: Agreement, host: Host) -> Mapping[str, bytes]:
    """Prepare the A-ASSOCIATE-AC; give the extended negotiation it answers with."""
    contexts = [_context(one) for one in agreement.contexts]
    association._accepted_cx = {
        cast(int, one.context_id): one for one in contexts if not one.result
    }
    association._rejected_cx = [one for one in contexts if one.result]
    acceptor, entity = association.acceptor, association.ae
    acceptor.maximum_length = host.settings.association.max_pdu_bytes
    acceptor.implementation_class_uid = entity.implementation_class_uid
    acceptor.implementation_version_name = entity.implementation_version_name
    for uid, roles in agreement.roles.items():
        item = SCP_SCU_RoleSelectionNegotiation()
        item.sop_class_uid, item.scu_role, item.scp_role = uid, roles.scu, roles.scp
        acceptor.add_negotiation_item(item)
    if association.requestor.asynchronous_operations != (1, 1):
        window = AsynchronousOperationsWindowNegotiation()
        window.maximum_number_operations_invoked = 1
        window.maximum_number_operations_performed = 1
        acceptor.add_negotiation_item(window)
    return _answer_extended(association, agreement, host)


def _answer_extended(
    association: Association, agreement: Agreement, host: Host
) -> Mapping[str, bytes]:
    asked = {str(uid): each for uid, each in association.requestor.sop_class_extended.items()}
    classes = frozenset(one.abstract_syntax for one in agreement.accepted.values())
    answers = answer_extended(asked, classes, host.services.offers)
    for uid, information in answers.items():
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid = uid
        item.service_class_application_information = information
        association.acceptor.add_negotiation_item(item)
    return answers


def _context(agreed: Agreed) -> PresentationContext:
    context = PresentationContext()
    context.context_id = agreed.context_id
    context.abstract_syntax = agreed.abstract_syntax
    context.add_transfer_syntax(agreed.transfer_syntax)
    context.result = agreed.result
    context._as_scp, context._as_scu = agreed.as_scp, agreed.as_scu
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
