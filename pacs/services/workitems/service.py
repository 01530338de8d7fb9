"""The worklist: workitems made, claimed, changed and ended, whoever performs them. PS3.4 Annex CC.

Owns which state may follow which (Table CC.1.1-2) and the Transaction UID as the
key to a workitem that somebody performs. Every change and the events that tell of
it are one transaction. Refuses to perform anything; who shall be asked to is told
by ``on_created``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pacs.core.caller import Caller
from pacs.core.errors import NotAuthorized
from pacs.core.identifiers import AETitle, SOPInstanceUID, is_uid
from pacs.core.ports import Unit
from pacs.core.workitem_errors import (
    AlreadyCompleted,
    AlreadyInProgress,
    NoLongerUpdated,
    NotInProgress,
    PerformerAway,
    TransactionUIDWrong,
    WorkitemExists,
    WorkitemsFull,
    WorkitemUIDInvalid,
    WorkitemUnknown,
)
from pacs.core.workitem_ports import WorkitemRow
from pacs.core.workitems import (
    FILTERED_SUBSCRIPTION,
    FINAL_STATES,
    GLOBAL_SUBSCRIPTION,
    WorkitemState,
    WorkitemUID,
)
from pacs.services.workitems import attributes, events, final
from pacs.services.workitems.admin import Administration
from pacs.services.workitems.desk import (
    Desk,
    OnCreated,
    OnReady,
    Workitem,
    may_change,
    may_claim,
)
from pacs.services.workitems.encoding import (
    columns_of,
    copied,
    decoded,
    encoded,
    settle_character_set,
    tag_of,
    whole,
)
from pacs.services.workitems.events import EventType
from pacs.services.workitems.finding import Finding
from pacs.services.workitems.watching import Watching

_WELL_KNOWN = (GLOBAL_SUBSCRIPTION, FILTERED_SUBSCRIPTION)
_PROGRESS = tag_of("ProcedureStepProgressInformationSequence")
_ROOM_TO_END_BYTES = 65_536
"""Beyond ``max_bytes``, for a final state and its reasons: no workitem is too large to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A workitem that was made. ``changes`` are the attributes that are kept otherwise than sent."""

    uid: WorkitemUID
    adjusted: bool
    changes: Dataset = field(repr=False)


class Outcome(Enum):
    """What became of a request to end a workitem."""

    DONE = "done"
    ALREADY = "it is in that state already"


class Workitems:
    """The worklist of every subscriber. For many threads, processes and nodes."""

    def __init__(self, desk: Desk, *, on_created: Sequence[OnCreated] = ()) -> None:
        self._desk = desk
        self._on_created = list(on_created)
        self._on_ready: list[OnReady] = []
        self.watching = Watching(desk)
        self.finding = Finding(desk)
        self.administration = Administration(desk)

    def add_on_created(self, hook: OnCreated) -> None:
        """Ask ``hook`` for jobs whenever a workitem is created. While the archive is put together."""
        self._on_created.append(hook)

    def add_on_ready(self, hook: OnReady) -> None:
        """Tell ``hook`` whenever the input of a workitem becomes READY. While the archive is put together."""
        self._on_ready.append(hook)

    # --- making and reading ---------------------------------------------------------------

    def create(self, caller: Caller, uid: str, data_set: Dataset) -> Created:
        """Make a workitem, SCHEDULED; an empty ``uid`` has one made for it.

        Raises ``WorkitemUIDInvalid``, ``WorkitemExists``, ``WorkitemsFull``, ``WorkitemTooLarge``
        and what ``attributes.created`` raises.
        """
        desk = self._desk
        chosen = WorkitemUID(uid or str(generate_uid(prefix=None)))
        if not is_uid(chosen) or SOPInstanceUID(chosen) in _WELL_KNOWN:
            raise WorkitemUIDInvalid
        made = attributes.created(
            data_set,
            chosen,
            worklist_label=desk.settings.worklist_label,
            now=desk.rows.now(),
        )
        row = WorkitemRow(
            number=0,
            uid=chosen,
            registrant=caller.registrant,
            state=WorkitemState.SCHEDULED,
            data_set=encoded(made.data_set, most_bytes=desk.settings.max_bytes),
        )
        with desk.records.transaction() as unit:
            jobs = [job for hook in self._on_created for job in hook(caller, chosen, whole(row))]
            self._add(unit, replace(row, ordered_by=_name(caller) if jobs else ""), made.data_set)
            for job in jobs:
                unit.enqueue(job)
        desk.note(caller, "created", chosen)
        return Created(uid=chosen, adjusted=bool(len(made.changes)), changes=made.changes)

    def _add(self, unit: Unit, row: WorkitemRow, data_set: Dataset) -> None:
        settings = self._desk.settings
        own, every = self._desk.rows.counts(row.registrant)
        if own >= settings.max_workitems_per_subscriber or every >= settings.max_workitems:
            raise WorkitemsFull
        number = self._desk.rows.insert(row, columns_of(data_set))
        if number is None:
            raise WorkitemExists
        self.watching.created(unit, replace(row, number=number), data_set)

    def read(self, uid: str) -> Workitem:
        """Give a workitem to whoever performs it here. Raises ``WorkitemUnknown``."""
        row = self._desk.rows.find(WorkitemUID(uid))
        if row is None:
            raise WorkitemUnknown
        return Workitem(
            uid=row.uid,
            state=row.state,
            registrant=row.registrant,
            performer=row.performer,
            cancel_asked=row.cancel_asked,
            transaction_uid=row.transaction_uid,
            data_set=whole(row),
        )

    def get(self, caller: Caller, uid: str) -> Dataset:
        """Give a workitem's attributes, never its Transaction UID. Raises ``WorkitemUnknown``."""
        return whole(self._desk.found(caller, uid))

    # --- performing -----------------------------------------------------------------------

    def claim(self, caller: Caller, uid: str, transaction_uid: str) -> None:
        """Begin to perform a workitem: SCHEDULED → IN PROGRESS, for exactly one of all who try.

        Raises ``WorkitemUnknown``, ``NotAuthorized``, ``TransactionUIDWrong``, ``AlreadyInProgress``
        or ``NoLongerUpdated``.
        """
        with self._changing(caller, uid) as (unit, row):
            if not is_uid(transaction_uid):
                raise TransactionUIDWrong
            _require(may_claim(caller, row))
            if row.state is not WorkitemState.SCHEDULED:
                _check_transaction(row, transaction_uid)
                in_progress = row.state is WorkitemState.IN_PROGRESS
                raise AlreadyInProgress if in_progress else NoLongerUpdated
            claimed = replace(
                row,
                state=WorkitemState.IN_PROGRESS,
                transaction_uid=transaction_uid,
                performer=caller.ae_title,
            )
            self._write(unit, claimed)
        self._desk.note(caller, "claimed", uid)

    def modify(
        self, caller: Caller, uid: str, transaction_uid: str, modifications: Dataset
    ) -> None:
        """Change attributes; with the Transaction UID once it is IN PROGRESS, before without one.

        What our jobs will do in the name of who created it, only that one changes before.
        Raises ``WorkitemUnknown``, ``NotAuthorized``, ``NoLongerUpdated``, ``TransactionUIDWrong``,
        ``NotInProgress``, ``WorkitemTooLarge`` and what ``attributes.changed`` raises.
        """
        desk = self._desk
        with self._changing(caller, uid) as (unit, row):
            if row.state in FINAL_STATES:
                raise NoLongerUpdated
            if row.state is WorkitemState.IN_PROGRESS:
                _check_transaction(row, transaction_uid)
            else:
                _require(may_change(caller, row))
                if transaction_uid:
                    raise NotInProgress
            made = attributes.changed(
                decoded(row.data_set),
                modifications,
                row.state,
                now=desk.rows.now(),
                is_settled=_is_settled(row, caller),
            )
            kept = replace(row, data_set=encoded(made.data_set, most_bytes=desk.settings.max_bytes))
            desk.rows.update(kept, columns_of(made.data_set))
            self._tell_changes(unit, kept, made)
            if row.state is WorkitemState.SCHEDULED and attributes.is_ready(made.changes):
                for hook in self._on_ready:
                    hook(unit, row.uid)
        if row.state is WorkitemState.SCHEDULED or row.performer:  # ours tells its jobs' log
            desk.note(caller, "changed", uid)

    def _tell_changes(self, unit: Unit, row: WorkitemRow, made: attributes.Adjusted) -> None:
        changes, tell = made.changes, self.watching.tell
        if attributes.READINESS in changes:
            tell(unit, row, EventType.STATE_REPORT, events.state_report(made.data_set, row.state))
        assigned = events.assigned(made.data_set)
        if assigned is not None and any(tag in changes for tag in events.ASSIGNED):
            tell(unit, row, EventType.ASSIGNED, assigned)
        if _PROGRESS in changes:
            tell(unit, row, EventType.PROGRESS_REPORT, events.progress_report(made.data_set))

    def complete(self, caller: Caller, uid: str, transaction_uid: str) -> Outcome:
        """End a workitem as COMPLETED. Raises as ``cancel``."""
        return self._end(caller, uid, transaction_uid, WorkitemState.COMPLETED)

    def cancel(self, caller: Caller, uid: str, transaction_uid: str) -> Outcome:
        """End a workitem as CANCELED, by whoever performs it.

        Raises ``WorkitemUnknown``, ``NotInProgress``, ``TransactionUIDWrong``,
        ``NoLongerUpdated`` or ``FinalStateUnmet``.
        """
        return self._end(caller, uid, transaction_uid, WorkitemState.CANCELED)

    def _end(self, caller: Caller, uid: str, transaction_uid: str, state: WorkitemState) -> Outcome:
        with self._changing(caller, uid) as (unit, row):
            if row.state is WorkitemState.SCHEDULED:
                raise NotInProgress
            _check_transaction(row, transaction_uid)
            if row.state is state:
                return Outcome.ALREADY
            if row.state in FINAL_STATES:
                raise NoLongerUpdated
            data_set = decoded(row.data_set)
            if state is WorkitemState.CANCELED:
                final.with_cancellation(data_set, self._desk.rows.now())
            final.check(data_set, state)
            self._write(unit, replace(row, state=state), data_set)
        self._desk.note(caller, state.value.lower(), uid)
        return Outcome.DONE

    # --- asking for an end ------------------------------------------------------------------

    def request_cancel(self, caller: Caller, uid: str, request: Dataset) -> Outcome:
        """Ask that a workitem be cancelled; one nobody performs is cancelled. PS3.4 Section CC.2.2.3.

        Raises ``WorkitemUnknown``, ``NotAuthorized``, ``AlreadyCompleted`` or ``PerformerAway``.
        """
        asked = copied(request)
        with self._changing(caller, uid) as (unit, row):
            _require(may_change(caller, row))
            if row.state is WorkitemState.COMPLETED:
                raise AlreadyCompleted
            if row.state is WorkitemState.CANCELED:
                return Outcome.ALREADY
            begun = row.state is WorkitemState.IN_PROGRESS
            if begun and row.performer and not self._desk.watches.watches(row.number):
                raise PerformerAway
            told = events.cancel_requested(asked, caller.ae_title or AETitle("ADMIN"))
            self.watching.tell(unit, row, EventType.CANCEL_REQUESTED, told)
            if begun:
                self._desk.rows.update(replace(row, cancel_asked=True))
            else:
                self._cancel(unit, row, asked)
        self._desk.note(caller, "cancel-asked", uid)
        return Outcome.DONE

    def abandon(self, caller: Caller, uid: str, request: Dataset) -> Outcome:
        """Cancel a workitem whose performer is gone for good, without its Transaction UID.

        For the administrator: the SCP may (PS3.4 Section CC.2.1.3). Raises ``WorkitemUnknown``,
        ``NotAuthorized`` or ``AlreadyCompleted``.
        """
        asked = copied(request)
        with self._changing(caller, uid) as (unit, row):
            _require(may_change(caller, row))
            if row.state is WorkitemState.COMPLETED:
                raise AlreadyCompleted
            if row.state is WorkitemState.CANCELED:
                return Outcome.ALREADY
            self._cancel(unit, row, asked)
        self._desk.note(caller, "abandoned", uid)
        return Outcome.DONE

    def _cancel(self, unit: Unit, row: WorkitemRow, request: Dataset) -> None:
        """By way of IN PROGRESS: what was SCHEDULED has a Transaction UID that nobody knows."""
        if row.state is WorkitemState.SCHEDULED:
            row = replace(
                row,
                state=WorkitemState.IN_PROGRESS,
                transaction_uid=str(generate_uid(prefix=None)),
            )
            self._write(unit, row)
        data_set = decoded(row.data_set)
        final.with_cancellation(data_set, self._desk.rows.now(), request)
        settle_character_set(data_set, request)
        self._write(unit, replace(row, state=WorkitemState.CANCELED), data_set)

    # --- what all of them share -------------------------------------------------------------

    @contextmanager
    def _changing(self, caller: Caller, uid: str) -> Iterator[tuple[Unit, WorkitemRow]]:
        with self._desk.records.transaction() as unit:
            yield unit, self._desk.locked(caller, uid)

    def _write(self, unit: Unit, row: WorkitemRow, data_set: Dataset | None = None) -> None:
        """Write a workitem in its new state, and tell of it."""
        if data_set is None:
            data_set = decoded(row.data_set)
        else:
            room = _ROOM_TO_END_BYTES if row.state in FINAL_STATES else 0
            most = self._desk.settings.max_bytes + room
            row = replace(row, data_set=encoded(data_set, most_bytes=most))
        self._desk.rows.update(row)
        report = events.state_report(data_set, row.state)
        self.watching.tell(unit, row, EventType.STATE_REPORT, report)


def _name(caller: Caller) -> str:
    """Whose rights, bounds and bill are meant: none of the three holds a backslash."""
    return "\\".join((caller.subscriber, caller.ae_title, caller.purpose))


def _is_settled(row: WorkitemRow, caller: Caller) -> bool:
    """Tell whether what is ordered stays, for this caller."""
    begun = row.state is not WorkitemState.SCHEDULED
    return begun or row.ordered_by not in ("", _name(caller))


def _require(allowed: bool) -> None:
    """An agreement that shows others' workitems lets nobody change them."""
    if not allowed:
        raise NotAuthorized("another subscriber's workitem may be seen, not changed")


def _check_transaction(row: WorkitemRow, transaction_uid: str) -> None:
    if not transaction_uid or transaction_uid != row.transaction_uid:
        raise TransactionUIDWrong
