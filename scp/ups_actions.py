"""Unified Procedure Step SCP, N-ACTION: states changed, cancels asked for, subscriptions. DICOM PS3.4 Sections CC.2.1 to CC.2.3."""

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Final

from pydicom.dataset import Dataset

from pacs.association.message import Request, Response
from pacs.core.errors import IdentifierInvalid
from pacs.core.workitem_errors import (
    ActionUnknown,
    ArgumentInvalid,
    NeverScheduledAgain,
)
from pacs.core.workitems import UPS_PULL, UPS_PUSH, UPS_WATCH, WorkitemState
from pacs.services.workitems import Outcome, Workitems
from pacs.services.workitems.encoding import single, tag_of
from scp.status import SUCCESS

ALREADY_CANCELED: Final = 0xB304
ALREADY_COMPLETED: Final = 0xB306
"""PS3.4 Tables CC.2.1-2 and CC.2.2-2, warnings."""
_LOCKS: Final = {"TRUE": True, "FALSE": False}


class Action(IntEnum):
    """Action Type IDs, PS3.4 Tables CC.2.1-1, CC.2.2-1 and CC.2.3-1."""

    CHANGE_STATE = 1
    REQUEST_CANCEL = 2
    SUBSCRIBE = 3
    UNSUBSCRIBE = 4
    SUSPEND = 5


PROVIDED: Final[Mapping[int, frozenset[str]]] = {
    Action.CHANGE_STATE: frozenset({UPS_PULL}),
    Action.REQUEST_CANCEL: frozenset({UPS_PUSH, UPS_WATCH}),
    Action.SUBSCRIBE: frozenset({UPS_WATCH}),
    Action.UNSUBSCRIBE: frozenset({UPS_WATCH}),
    Action.SUSPEND: frozenset({UPS_WATCH}),
}


def act(request: Request, workitems: Workitems) -> Iterator[Response]:
    """Answer one N-ACTION."""
    action = request.fields.get("ActionTypeID")
    if not isinstance(action, int) or request.context_uid not in PROVIDED.get(action, ()):
        raise ActionUnknown
    information = request.identifier or Dataset()
    yield Response(status=_ACTIONS[action](request, information, workitems))


def change_state(request: Request, information: Dataset, workitems: Workitems) -> int:
    """Claim a workitem, or end it."""
    caller, uid = request.caller, named(request)
    wanted = text_of(information, "ProcedureStepState")
    transaction_uid = text_of(information, "TransactionUID")
    if wanted not in (one.value for one in WorkitemState):
        raise ArgumentInvalid(attributes=(tag_of("ProcedureStepState"),))
    state = WorkitemState(wanted)
    if state is WorkitemState.IN_PROGRESS:
        workitems.claim(caller, uid, transaction_uid)
        return SUCCESS
    if state is WorkitemState.COMPLETED:
        ended = workitems.complete(caller, uid, transaction_uid)
        return SUCCESS if ended is Outcome.DONE else ALREADY_COMPLETED
    if state is WorkitemState.CANCELED:
        ended = workitems.cancel(caller, uid, transaction_uid)
        return SUCCESS if ended is Outcome.DONE else ALREADY_CANCELED
    workitems.get(caller, uid)
    raise NeverScheduledAgain


def request_cancel(request: Request, information: Dataset, workitems: Workitems) -> int:
    """Ask that a workitem be cancelled."""
    ended = workitems.request_cancel(request.caller, named(request), information)
    return SUCCESS if ended is Outcome.DONE else ALREADY_CANCELED


def subscribe(request: Request, information: Dataset, workitems: Workitems) -> int:
    """Have an AE told of workitems."""
    lock = _LOCKS.get(text_of(information, "DeletionLock"))
    if lock is None:
        raise ArgumentInvalid(attributes=(tag_of("DeletionLock"),))
    workitems.watching.subscribe(
        request.caller,
        named(request),
        text_of(information, "ReceivingAE"),
        deletion_lock=lock,
        keys=information,
    )
    return SUCCESS


def unsubscribe(request: Request, information: Dataset, workitems: Workitems) -> int:
    """Have an AE told no more."""
    receiving_ae = text_of(information, "ReceivingAE")
    workitems.watching.unsubscribe(request.caller, named(request), receiving_ae)
    return SUCCESS


def suspend(request: Request, information: Dataset, workitems: Workitems) -> int:
    """Have an AE told no more of what comes."""
    receiving_ae = text_of(information, "ReceivingAE")
    workitems.watching.suspend(request.caller, named(request), receiving_ae)
    return SUCCESS


_ACTIONS: Final[Mapping[int, Callable[[Request, Dataset, Workitems], int]]] = {
    Action.CHANGE_STATE: change_state,
    Action.REQUEST_CANCEL: request_cancel,
    Action.SUBSCRIBE: subscribe,
    Action.UNSUBSCRIBE: unsubscribe,
    Action.SUSPEND: suspend,
}


def named(request: Request) -> str:
    """Give the SOP Instance UID a request is about."""
    return str(request.fields.get("RequestedSOPInstanceUID") or "")


def text_of(data_set: Dataset, keyword: str) -> str:
    """Give a text of one value, empty where there is none. Raises ``ArgumentInvalid``."""
    tag = tag_of(keyword)
    try:
        text = single(data_set, tag)
    except IdentifierInvalid as error:
        raise ArgumentInvalid(attributes=(tag,)) from error
    if text is None:
        raise ArgumentInvalid(attributes=(tag,))
    return text
