"""In whose name a profile asks, and whether its contract lets it: as it stands when the series is quiet."""

from dataclasses import replace
from datetime import datetime

from pacs.core.caller import Caller, Right, SubscriberName, Visibility
from pacs.core.errors import NotAuthorized
from pacs.core.identifiers import Registrant
from pacs.core.records import Snapshot
from pacs.services.gate.loopback import LOCAL
from pacs.services.gate.terms import resolved
from pacs.services.profile.asked import ArrivedWork


def granted(caller: Caller, work: ArrivedWork, snapshot: Snapshot, now_utc: datetime) -> Caller:
    """Give the caller what its contract grants. Raises ``NotAuthorized``."""
    rights = caller.rights | {Right.PROCESS}
    if not snapshot.contracts and work.registrant == Registrant(LOCAL):
        return replace(caller, rights=rights, revision=snapshot.revision)
    contract = snapshot.contracts.get(SubscriberName(work.registrant))
    if contract is None:
        raise NotAuthorized(f"{work.registrant} has no contract")
    terms = resolved(contract, snapshot, work.purpose, now_utc)
    if Right.PROCESS not in terms.rights:
        raise NotAuthorized(f"{work.registrant} has no right to {Right.PROCESS.value}")
    return replace(
        caller,
        rights=terms.rights,
        # Its own series only, as far as the purpose lets it see that.
        visibility=Visibility(
            registrants=frozenset({work.registrant}), modalities=terms.visibility.modalities
        ),
        issuer_of_patient_id=contract.issuer_of_patient_id or contract.subscriber,
        purpose=terms.purpose,
        destinations=terms.destinations,
        max_matrix=terms.max_matrix,
        revision=snapshot.revision,
    )
