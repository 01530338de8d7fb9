"""What of a study a destination lacks: what is held, less what it was sent by our record.

Reads only, but for one thing: what an earlier run has left as being sent may have been received.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pacs.core.attributes import Level
from pacs.core.caller import on_behalf
from pacs.core.forwarding import ForwardWork
from pacs.core.identifiers import ObjectId, SOPInstanceUID
from pacs.core.records import Selection
from pacs.core.routing import Route
from pacs.core.sent import SentRow, SentState
from pacs.core.work import Permanent
from pacs.services.delivery.contexts import Chosen
from pacs.services.forward.desk import Desk


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What there is to do. ``missing`` is in the order in which it is to be sent."""

    missing: Sequence[Chosen]
    known: dict[int, SentRow]
    """Row → what is known of it, missing ones and sent ones."""
    undecided: Sequence[SOPInstanceUID] = ()
    """Of which nobody can tell whether the route selects them: their files cannot be read."""

    @property
    def sent(self) -> list[SentRow]:
        """What the destination was sent."""
        return [one for one in self.known.values() if one.state is SentState.SENT]

    @property
    def tried(self) -> dict[ObjectId, int]:
        """How often each instance has been begun."""
        return {one.object_id: one.attempts for one in self.known.values()}


def doubt(desk: Desk, work: ForwardWork, found: Survey) -> int:
    """Say of what an earlier run has left that it may have been received; gives how many there are.

    No other run is at work for this destination, so none of them is still being sent.
    """
    left = [one.object_id for one in found.known.values() if one.state is SentState.SENDING]
    if left:
        with desk.records.transaction():
            desk.sent.doubt(work.destination, left)
    return len(left)


def survey(desk: Desk, work: ForwardWork, route: Route | None) -> Survey:
    """Find what is missing. Raises ``Permanent`` for more than the bound, ``RecordsFailed``."""
    known = {one.row: one for one in _known(desk, work)}
    missing = [
        one
        for one in _held(desk, work)
        if one[0] in known and known[one[0]].state is not SentState.SENT
    ]
    undecided: set[int] = set()
    if missing and route is not None:
        wanted = _selected(desk, work, route, [one[0] for one in missing], undecided)
        missing = [one for one in missing if one[0] in wanted]
    if route is not None and route.in_order:
        missing.sort(key=lambda one: known[one[0]].object_id)  # these are ordered by time
    else:  # what fails again and again keeps nothing else back
        missing.sort(key=lambda one: known[one[0]].attempts >= desk.settings.max_attempts)
    todo = {one[0] for one in missing}
    return Survey(
        missing=missing,
        known={
            row: one for row, one in known.items() if row in todo or one.state is SentState.SENT
        },
        undecided=[known[row].sop_instance_uid for row in sorted(undecided)],
    )


def _selected(
    desk: Desk, work: ForwardWork, route: Route, rows: Sequence[int], undecided: set[int]
) -> frozenset[int]:
    """Keep what the route selects, and nothing that came from the destination itself."""
    theirs = desk.judge.came_from(work.destination, rows)
    if work.whole:
        return frozenset(rows) - theirs
    wanted = desk.judge.selects(route, work.registrant, rows, undecided=undecided)
    undecided -= theirs
    return wanted - theirs


def tallied(rows: Iterable[SentRow], job: int, fresh: Collection[ObjectId] = ()) -> dict[str, int]:
    """Count for the job's result what it sent, over all its attempts; ``fresh`` is not yet in the rows.

    ``unknown`` are those of which an answer had been lost before: they may have been received twice.
    """
    counts = dict.fromkeys(("sent", "already", "refused", "unknown", "bytes", "committed"), 0)
    for one in rows:
        now = one.object_id in fresh
        sent = now or one.state is SentState.SENT
        ours = sent and (now or one.job == job)
        counts["sent"] += ours
        counts["already"] += sent and not ours
        counts["refused"] += not sent and one.state is SentState.REFUSED
        counts["unknown"] += ours and one.doubts > 0
        counts["bytes"] += one.size_bytes if ours else 0
        counts["committed"] += one.committed
    return counts


def _known(desk: Desk, work: ForwardWork) -> Sequence[SentRow]:
    rows = desk.sent.of_study(
        work.destination, work.registrant, work.study_instance_uid, work.series_instance_uid
    )
    if not work.sop_instance_uids:
        return rows
    named = frozenset(work.sop_instance_uids)
    return [one for one in rows if one.sop_instance_uid in named]


def selection_of(work: ForwardWork) -> Selection:
    """Say what is to be sent, as the index is asked for it."""
    series, named = work.series_instance_uid, work.sop_instance_uids
    level = Level.STUDY if series is None else Level.SERIES
    return Selection(
        level=Level.IMAGE if named else level,
        study_instance_uids=(work.study_instance_uid,),
        series_instance_uids=() if series is None else (series,),
        sop_instance_uids=named,
    )


def _held(desk: Desk, work: ForwardWork) -> Sequence[Chosen]:
    most = desk.settings.max_instances
    visibility = on_behalf(work.registrant, "forward").visibility
    held = desk.index.select(selection_of(work), visibility, most)
    if len(held) > most:
        raise Permanent(f"more than {most} instances (forward.max_instances)")
    return held
