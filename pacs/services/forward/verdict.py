"""What follows from a shipment that did not bring everything: held, tried again, given up. PS3.7 Annex C.

Raises what the engine of jobs understands, with one line for the administrator.
"""

from collections.abc import Mapping, Sequence
from itertools import islice

from pacs.core.errors import CoercionFailed, PeerUnreachable, TranscodingFailed
from pacs.core.identifiers import ObjectId, SOPInstanceUID
from pacs.core.records import Held
from pacs.core.sent import SentState, Told
from pacs.core.work import Hold, Permanent, Postpone, Retry
from pacs.services.forward.trip import Trip

_NAMED = 5
_LASTING = frozenset({TranscodingFailed.peer_comment, CoercionFailed.peer_comment})
"""Troubles that another attempt does not end."""

Failed = Sequence[tuple[Told, Held]]


def is_busy(told: Told) -> bool:
    """Tell whether the destination is out of resources for now (PS3.7 Section C.5.21, PS3.4 Table B.2-1)."""
    return told.status is not None and told.status >> 8 == 0xA7


def is_full(told: Told | None, tried: Mapping[ObjectId, int], max_attempts: int) -> bool:
    """Tell whether this answer means that there is no room for anything; what always gets it means nothing."""
    return told is not None and is_busy(told) and tried.get(told.object_id, 0) + 1 < max_attempts


def judge(trip: Trip, tried: Mapping[ObjectId, int], *, total: int, max_attempts: int) -> None:
    """Return where another shipment may go at once; raise how the job goes on otherwise.

    ``tried`` is how often each instance had been begun before. What ends the association, or finds
    the destination full, ``max_attempts`` times is no reason to let others wait any longer.
    """
    if trip.trouble is not None:
        _away(trip, trip.trouble, tried, total, max_attempts)
        return
    refused = trip.ended_as(SentState.REFUSED)
    busy = [one for one in refused if is_busy(one[0])]
    if busy and not _worn(busy, tried, max_attempts):
        raise Hold(_named("found the destination out of resources", busy, total))
    if trip.stopped:
        raise Postpone("other queues go first", after_s=0)
    if not refused:
        raise Hold("the association ended before everything was sent")
    if all(one.trouble in _LASTING for one, _ in refused):
        raise Permanent(_named("cannot be sent", refused, total))
    raise Retry(_named("were not taken", refused, total))


def _away(
    trip: Trip,
    trouble: PeerUnreachable,
    tried: Mapping[ObjectId, int],
    total: int,
    max_attempts: int,
) -> None:
    """Return where the association brought something before it ended."""
    if trip.ended_as(SentState.SENT):
        return
    lost = trip.ended_as(SentState.UNKNOWN)
    if lost and _worn(lost, tried, max_attempts):
        raise Retry(_named("ended the association", lost, total))
    raise Hold(f"{trouble}; {len(lost)} may have been received" if lost else str(trouble))


def _worn(failed: Failed, tried: Mapping[ObjectId, int], max_attempts: int) -> bool:
    """Tell whether one of them was begun so often that it is the reason, and not the destination."""
    return any(tried.get(one.object_id, 0) + 1 >= max_attempts for one, _ in failed)


def not_judged(undecided: Sequence[SOPInstanceUID]) -> Retry:
    """Say that nobody can tell of some whether they are to be sent; done it is not."""
    first = ", ".join(undecided[:_NAMED]) + (", …" if len(undecided) > _NAMED else "")
    return Retry(
        f"{len(undecided)} instances cannot be judged, their files cannot be read: {first}"
    )


def _named(what: str, failed: Failed, total: int) -> str:
    """Say how many, and name the first few."""
    first = ", ".join(
        f"{held.sop_instance_uid} ({why(told)})" for told, held in islice(failed, _NAMED)
    )
    more = ", …" if len(failed) > _NAMED else ""
    return f"{len(failed)} of {total} instances {what}: {first}{more}"


def why(told: Told) -> str:
    """Say why one instance was not taken: the status, or our trouble."""
    if told.status is not None:
        return f"status {told.status:04X}"
    return told.trouble or "no answer"
