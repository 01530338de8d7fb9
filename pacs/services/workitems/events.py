"""What watchers are told: the five events of PS3.4 Table CC.2.4-1, and their way into the outbox.

Owns the Event Information. Who watches is in rows; an event for which the outbox
has no room is dropped and logged: it never holds up the work (PS3.4 Section
CC.2.4.3 asks for no more).
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Final

from pydicom.dataset import Dataset

from pacs.core.caller import Right, SubscriberName
from pacs.core.errors import EventTooLarge, OutboxFull
from pacs.core.events import Addressee, Event
from pacs.core.identifiers import AETitle, Registrant, SOPInstanceUID
from pacs.core.ports import Unit
from pacs.core.records import Snapshot
from pacs.core.workitems import GLOBAL_SUBSCRIPTION, UPS_EVENT, UPS_PUSH, WorkitemState
from pacs.services.gate.loopback import LOCAL
from pacs.services.outbox import event_information
from pacs.services.workitems.encoding import (
    SPECIFIC_CHARACTER_SET,
    items_of,
    settle_character_set,
    single,
    tag_of,
)

LOGGER = logging.getLogger("pacs.workitems")

_REASONS: Final = ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence")
CANCEL_REQUEST: Final = (*_REASONS, "ContactURI", "ContactDisplayName")
"""What a request to cancel may say, PS3.4 Table CC.2.2-1."""
_PROGRESS: Final = (
    "ProcedureStepProgress",
    "ProcedureStepProgressDescription",
    "ProcedureStepProgressParametersSequence",
    "ProcedureStepCommunicationsURISequence",
)
_STATION: Final = "ScheduledStationNameCodeSequence"
_HUMANS: Final = "ScheduledHumanPerformersSequence"
ASSIGNED: Final = frozenset({tag_of(_STATION), tag_of(_HUMANS)})


class EventType(IntEnum):
    """Event Type IDs, PS3.4 Table CC.2.4-1."""

    STATE_REPORT = 1
    CANCEL_REQUESTED = 2
    PROGRESS_REPORT = 3
    SCP_STATUS_CHANGE = 4
    ASSIGNED = 5


def state_report(data_set: Dataset, state: WorkitemState) -> Dataset:
    """Say where a workitem stands."""
    made = Dataset()
    made.ProcedureStepState = state.value
    made.InputReadinessState = single(data_set, tag_of("InputReadinessState"))
    if state is WorkitemState.CANCELED:
        for progress in items_of(data_set, "ProcedureStepProgressInformationSequence")[:1]:
            _copy(progress, made, _REASONS)
    return _written_as(made, data_set)


def cancel_requested(request: Dataset, ae_title: AETitle) -> Dataset:
    """Say who wants a workitem cancelled, and why."""
    made = Dataset()
    made.RequestingAE = ae_title
    _copy(request, made, CANCEL_REQUEST)
    return _written_as(made, request)


def progress_report(data_set: Dataset) -> Dataset:
    """Say how far a workitem is."""
    made, item = Dataset(), Dataset()
    for progress in items_of(data_set, "ProcedureStepProgressInformationSequence")[:1]:
        _copy(progress, item, _PROGRESS)
    made.ProcedureStepProgressInformationSequence = [item]
    return _written_as(made, data_set)


def assigned(data_set: Dataset) -> Dataset | None:
    """Say who is to perform a workitem; ``None`` where nobody is named."""
    made = Dataset()
    _copy(data_set, made, (_STATION,))
    for human in items_of(data_set, _HUMANS)[:1]:
        _copy(human, made, ("HumanPerformerCodeSequence", "HumanPerformerOrganization"))
    return _written_as(made, data_set) if len(made) else None


def restarted() -> Dataset:
    """Say that the archive has started, with every workitem and everybody who watches known."""
    made = Dataset()
    made.SCPStatus = "RESTARTED"
    made.SubscriptionListStatus = "WARM START"
    made.UnifiedProcedureStepListStatus = "WARM START"
    return made


def _copy(source: Dataset, to: Dataset, keywords: Sequence[str]) -> None:
    for keyword in keywords:
        if keyword in source and not source[keyword].is_empty:
            to[keyword] = source[keyword]


def _written_as(made: Dataset, source: Dataset) -> Dataset:
    if SPECIFIC_CHARACTER_SET in source:
        made[SPECIFIC_CHARACTER_SET] = source[SPECIFIC_CHARACTER_SET]
    settle_character_set(made)
    return made


# --- into the outbox --------------------------------------------------------------------


def post(
    unit: Unit, to: Iterable[Addressee], uid: str, kind: EventType, information: Dataset
) -> None:
    """Have everybody told, once this transaction is committed."""
    encoded = b""
    for addressee in to:
        encoded = encoded or event_information(information)
        event = Event(
            addressee=addressee,
            sop_class_uid=UPS_PUSH,
            sop_instance_uid=SOPInstanceUID(uid),
            event_type_id=kind,
            information=encoded,
            context_uid=UPS_EVENT,
        )
        try:
            unit.post(event)
        except (OutboxFull, EventTooLarge) as full:
            LOGGER.warning(
                "workitem-event-dropped to=%s type=%d why=%s",
                addressee.ae_title,
                kind,
                type(full).__name__,
            )


def post_restarted(unit: Unit, to: Iterable[Addressee]) -> None:
    """Tell everybody who watches anything that the archive has started."""
    post(unit, to, GLOBAL_SUBSCRIPTION, EventType.SCP_STATUS_CHANGE, restarted())


def entitled(
    addressees: Iterable[Addressee],
    snapshot: Snapshot,
    now: datetime,
    of: Registrant | None = None,
) -> list[Addressee]:
    """Leave out whose contract does not let it ask, and AE titles that have become another's device.

    ``of`` is whose workitem is told of: others are told as long as their contract shows it.
    """
    return [
        one
        for one in addressees
        if _is_device_of(one, snapshot) and _may_be_told(one.registrant, snapshot, now, of)
    ]


def _is_device_of(one: Addressee, snapshot: Snapshot) -> bool:
    peer = snapshot.peers.get(one.ae_title)
    return peer is None or (peer.subscriber or one.registrant) == one.registrant


def _may_be_told(who: Registrant, snapshot: Snapshot, now: datetime, of: Registrant | None) -> bool:
    """Under which purpose it subscribed is not known: what any of them lets it hear is told."""
    contract = snapshot.contracts.get(SubscriberName(who))
    if contract is None:
        return not snapshot.contracts or who == Registrant(LOCAL)  # loopback has no contract
    shown = of in (None, who) or any(
        one.owner is None and one.study_instance_uid is None for one in contract.agreements
    )
    return shown and contract.holds(now) and Right.PROCESS in contract.rights
