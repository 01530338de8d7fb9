"""How our performer uses the worklist: claims a workitem, says how it goes on, and ends it.

Each step can be repeated after a crash: what has been done is seen in the workitem.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset

from pacs.core.attributes import Level
from pacs.core.caller import Caller, Right, Visibility, admin, on_behalf
from pacs.core.errors import (
    NotAuthorized,
    PacsError,
    ProcessingRefused,
    ProcessingUnknown,
    RecordsFailed,
)
from pacs.core.identifiers import ObjectId, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.process_results import PieceDone
from pacs.core.processing import OperationFact
from pacs.core.records import Selection
from pacs.core.workitem_errors import WorkitemTooLarge
from pacs.core.workitems import FINAL_STATES, WorkitemState, WorkitemUID
from pacs.services.process import report
from pacs.services.process.desk import Desk, Workitem
from pacs.services.process.order import Wanted, begins_of, expiration_of, is_ready, read
from pacs.services.process.report import Discontinued, Why
from pacs.services.process.standing import Creator, require_destinations, standing
from pacs.services.process.words import read_time

_ASKED_AT_ONCE: Final = 500
_LOOK_AGAIN_S: Final = 30.0
_LOOK_LATEST_S: Final = 300.0
_TOO_LARGE: Final = "the workitem is too large to say in it what was done"


class Hand:
    """Our performer's hand on one workitem, for one job; ``session`` is the Transaction UID it is claimed with."""

    def __init__(self, desk: Desk, uid: str, session: str, *, job: int) -> None:
        self._desk = desk
        self._uid = WorkitemUID(uid)
        self._session = session
        self._command = f"job {job}"
        self._item: Workitem | None = None
        self._is_full = False

    @property
    def item(self) -> Workitem:
        """The workitem as it was when it was taken up."""
        assert self._item is not None, "take_up says whether there is one"
        return self._item

    def waits_s(self, made: datetime, most_s: float) -> float:
        """Give for how long the workitem is to be left alone yet: not before its time, nor before its input is there.

        0 where it is to be taken up, if only to say that it has waited for too long.
        """
        if not self.look() or self.item.state is not WorkitemState.SCHEDULED:
            return 0.0
        now = datetime.now(UTC)
        begins, expires = begins_of(self.item.data_set), expiration_of(self.item.data_set)
        over = made + timedelta(seconds=most_s)
        if begins is not None and begins > now:
            until = begins
        elif not is_ready(self.item.data_set) and now < over:
            # Whoever makes it ready brings this forward; to look again is for what that has missed.
            again_s = min(max((now - made).total_seconds() / 10, _LOOK_AGAIN_S), _LOOK_LATEST_S)
            until = min(now + timedelta(seconds=again_s), over)
        else:
            return 0.0
        until = until if expires is None else min(until, expires)
        return max((until - now).total_seconds(), 0.0)

    def require_input(self) -> None:
        """Refuse to work on what its maker says is not there. Raises ``Discontinued``."""
        if not is_ready(self.item.data_set):
            raise Discontinued(Why.MISSING, "the input did not become ready")

    @property
    def began_utc(self) -> datetime | None:
        """When the work began, where the workitem says so."""
        return _began(self.item.data_set)

    def take_up(self) -> str:
        """Claim the workitem, or go on with it; gives why it is not ours to perform, empty where it is."""
        try:
            self._item = self._desk.workitems.read(self._uid)
        except RecordsFailed:
            raise
        except PacsError:
            return "the workitem is no longer there"
        if self._item.state in FINAL_STATES:
            return "the workitem has ended"
        if self._item.state is WorkitemState.SCHEDULED:
            self._claim()
        elif self._item.transaction_uid != self._session:
            return "somebody else performs it"
        return ""

    def _claim(self) -> None:
        workitems = self._desk.workitems
        workitems.claim(self._performer(), self._uid, self._session)
        self._is_full = not self._is_set(report.begun(self._desk.ae_title))
        self._item = workitems.read(self._uid)

    def has_completed(self) -> bool:
        """Tell whether the workitem is COMPLETED, and by us."""
        try:
            item = self._desk.workitems.read(self._uid)
        except RecordsFailed:
            raise
        except PacsError:
            return False  # removed
        return item.state is WorkitemState.COMPLETED and item.transaction_uid == self._session

    def unwanted(self) -> Discontinued | None:
        """Why the workitem is to end though nothing failed: asked to, or too late."""
        if self.item.cancel_asked:
            return Discontinued(Why.ASKED, "cancelled as requested")
        expires_utc = expiration_of(self.item.data_set)
        if expires_utc is not None and expires_utc <= datetime.now(UTC):
            return Discontinued(Why.EXPIRED, "the workitem has expired")
        return None

    def look(self) -> bool:
        """Read the workitem without taking it up; tells whether it is there, and open."""
        try:
            self._item = self._desk.workitems.read(self._uid)
        except RecordsFailed:
            raise
        except PacsError:
            return False
        return self._item.state not in FINAL_STATES

    def understood(self) -> tuple[Wanted, OperationFact]:
        """Understand the workitem. Raises ``Discontinued`` where it cannot be done by anybody."""
        desk = self._desk
        if self._is_full:
            raise Discontinued(Why.REJECTED, _TOO_LARGE)
        try:
            wanted = read(
                self.item.data_set,
                desk.operations,
                ae_title=desk.ae_title,
                most=desk.settings.max_instances,
            )
            order = wanted.order
            return wanted, desk.processor.checked(order.operation, order.parameters, order.version)
        except ProcessingUnknown as error:
            raise Discontinued(Why.REJECTED, str(error)) from error

    def allowed(self, creator: Creator) -> tuple[Wanted, OperationFact, Caller]:
        """Judge the workitem by what its maker may do now. Raises ``Discontinued``."""
        unwanted = self.unwanted()
        if unwanted is not None:
            raise unwanted
        wanted, fact = self.understood()
        snapshot, now_utc = self._desk.snapshots.newest(), datetime.now(UTC)
        try:
            caller = standing(creator, snapshot, now_utc)
            require_destinations(caller, wanted.order.destinations, snapshot, now_utc)
        except (NotAuthorized, ProcessingRefused) as error:
            self._desk.audit.record(
                "process-refused", creator.named(), workitem=self._uid, cause=str(error)
            )
            lacks_right = isinstance(error, NotAuthorized)  # which one is for the audit trail
            said = "the contract grants no processing" if lacks_right else str(error)
            raise Discontinued(Why.REJECTED, said) from error
        return wanted, fact, caller

    def tell(self, done: int, total: int, said: str) -> None:
        """Say how far it is, where there is room; never that it has gone back, and not where it has ended."""
        self._item = self._desk.workitems.read(self._uid)
        is_further = report.percent_of(self._item.data_set) < 100 * done // max(total, 1)
        if is_further and self._item.state is WorkitemState.IN_PROGRESS:
            self._is_set(report.progress(done, total, said))

    def complete(self, performed: report.Performed, said: str) -> bool:
        """End the workitem as COMPLETED; tells whether it could be: CANCELED where it has no room for what it must say."""
        if any(self._is_set(report.completed(one, said)) for one in report.shorter(performed)):
            self._desk.workitems.complete(self._performer(), self._uid, self._session)
            return True
        self._abandon(Discontinued(Why.FAILED, _TOO_LARGE))
        return False

    def discontinue(self, performed: report.Performed, why: Discontinued) -> None:
        """End the workitem as CANCELED."""
        if any(self._is_set(report.discontinued(one, why)) for one in report.shorter(performed)):
            self._desk.workitems.cancel(self._performer(), self._uid, self._session)
        else:
            self._abandon(why)

    def _abandon(self, why: Discontinued) -> None:
        """End a workitem that has room for nothing but its end."""
        self._desk.workitems.abandon(admin(self._command), self._uid, report.reasoned(why))

    def performed(
        self,
        wanted: Wanted | None = None,
        fact: OperationFact | None = None,
        outputs: Sequence[report.Output] = (),
        comment: str = "",
    ) -> report.Performed:
        """Say what was done."""
        return report.Performed(
            ae_title=self._desk.ae_title,
            began_utc=self.began_utc or datetime.now(UTC),
            fact=fact,
            parameters={} if wanted is None else wanted.order.parameters,
            outputs=outputs,
            comment=comment,
        )

    def _is_set(self, modifications: Dataset) -> bool:
        """Say this in the workitem; tells whether it had room for it."""
        try:
            self._desk.workitems.modify(self._performer(), self._uid, self._session, modifications)
        except WorkitemTooLarge:
            return False
        return True

    def _performer(self) -> Caller:
        caller = on_behalf(self.item.registrant, self._command)
        return replace(caller, rights=caller.rights | {Right.PROCESS})


def _began(data_set: Dataset) -> datetime | None:
    for item in data_set.get("UnifiedProcedureStepPerformedProcedureSequence") or ():
        return read_time(str(item.get("PerformedProcedureStepStartDateTime") or ""))
    return None


# --- results of a session --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Results of one series: what they are by SOP Class and Instance UID."""

    study_instance_uid: StudyInstanceUID
    series_instance_uid: SeriesInstanceUID
    instances: tuple[tuple[str, str], ...]


def series_of(done: Sequence[PieceDone]) -> Sequence[Series]:
    """Put the results of all pieces together, series by series."""
    found: dict[tuple[str, str], dict[tuple[str, str], None]] = {}
    for one in done:
        for made in one.made:
            key = (one.study_instance_uid, made.series_instance_uid)
            found.setdefault(key, {}).update(dict.fromkeys(made.instances))
    return [
        Series(
            study_instance_uid=StudyInstanceUID(study),
            series_instance_uid=SeriesInstanceUID(series),
            instances=tuple(instances),
        )
        for (study, series), instances in found.items()
        if instances
    ]


def are_held(desk: Desk, registrant: Registrant, made: Sequence[Series]) -> bool:
    """Tell whether all of these results are held still."""
    return _are_found(desk, Visibility(registrants=frozenset({registrant})), made)


def are_shown(desk: Desk, caller: Caller, registrant: Registrant, made: Sequence[Series]) -> bool:
    """Tell whether whoever asked sees all of these: its agreement with their owner may have ended."""
    seen = caller.visibility
    shown = all(seen.shows(registrant, one.study_instance_uid) for one in made)
    return shown and _are_found(desk, seen.only(registrant), made)


def _are_found(desk: Desk, visibility: Visibility, made: Sequence[Series]) -> bool:
    return all(
        len(desk.index.select(selection, visibility, len(selection.sop_instance_uids)))
        == len(selection.sop_instance_uids)
        for selection in selections_of(made)
    )


def selections_of(made: Sequence[Series]) -> Iterator[Selection]:
    """The results by name, whatever else lies in their series; some at once, as the index is asked for them."""
    for one in made:
        uids = [uid for _, uid in one.instances]
        for start in range(0, len(uids), _ASKED_AT_ONCE):
            yield Selection(
                level=Level.IMAGE,
                study_instance_uids=(one.study_instance_uid,),
                series_instance_uids=(one.series_instance_uid,),
                sop_instance_uids=tuple(uids[start : start + _ASKED_AT_ONCE]),
            )


def take_back(desk: Desk, workitem: str, done: Sequence[PieceDone]) -> None:
    """Delete results that nobody is to have, by the journal like anything that is deleted.

    The files we made and no others: in the same series, even under the same UID, may be what
    somebody else has sent. What was taken back before a crash is not there any more.
    """
    for one in series_of(done):

        def ours(made: Series = one) -> Sequence[ObjectId]:
            return desk.results.files(
                done[0].registrant,
                desk.ae_title,
                made.series_instance_uid,
                [uid for _, uid in made.instances],
            )

        desk.deletions.give_up(
            admin("process"),
            ours,
            reason="results of processing that are not to be kept",
            about={
                "workitem": workitem,
                "study": one.study_instance_uid,
                "series": one.series_instance_uid,
            },
        )


def reasons_of(done: Sequence[PieceDone], pieces: int) -> str:
    """Say what was not done, and why; empty where everything was."""
    counted = Counter(reason for one in done for reason in one.reasons)
    said = [f"{count} not done: {reason}" for reason, count in counted.items()]
    if lost := pieces - len(done):
        said.append(f"{lost} of {pieces} pieces failed")
    return "; ".join(said)
