"""The end of a workitem: results are sent where they are wanted, by forwarding, and the workitem says how it ended.

Results that nobody keeps are deleted once every destination has taken them;
what they were made of never is.
"""

import json
from collections.abc import Iterator, Sequence

from pacs.core.caller import Caller
from pacs.core.forwarding import MOST_NAMED, NOT_ALLOWED, ForwardWork
from pacs.core.identifiers import AETitle, Registrant, SOPInstanceUID
from pacs.core.job_ports import JobContext
from pacs.core.process_results import PieceDone
from pacs.core.processing import Keep
from pacs.core.records import Job
from pacs.core.work import JobState, Part
from pacs.services.process.desk import DeliverWork, Desk
from pacs.services.process.ending import (
    Hand,
    Series,
    are_held,
    are_shown,
    reasons_of,
    selections_of,
    series_of,
    take_back,
)
from pacs.services.process.order import Wanted
from pacs.services.process.report import Discontinued, Output, Why


class Delivering:
    """Handles what has been computed. Safe to use from many threads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def deliver(self, job: JobContext[DeliverWork]) -> object:
        """Handle one job of kind ``process.deliver``."""
        work = job.payload
        hand = Hand(self._desk, work.uid, work.transaction_uid, job=job.id)
        why_not = hand.take_up()
        if why_not:
            self._complete(hand, work)
            self._tidy(job, hand)
            return why_not
        done = self._desk.results.of(work.session)
        wanted: Wanted | None = None
        try:
            if job.parted:
                wanted, fact = hand.understood()
            else:
                wanted, fact, caller = hand.allowed(work.creator)
                self._require_held(caller, done)
                self._send(job, hand, wanted, done)
        except Discontinued as why:
            if not work.reused:
                take_back(self._desk, work.uid, done)
            hand.discontinue(hand.performed(wanted), why)
            return why.text
        said = "results that were there already" if work.reused else "done"
        outputs = self._outputs(wanted, done, keeps=not _is_once(wanted, work))
        performed = hand.performed(wanted, fact, outputs, said if work.reused else "")
        trouble = _trouble(job, done)
        if trouble is None:
            if not hand.complete(performed, said):
                said = "the workitem had no room for its end"
            self._complete(hand, work)
        else:
            hand.discontinue(performed, trouble)
        self._tidy(job, hand)
        return said if trouble is None else trouble.text

    def _complete(self, hand: Hand, work: DeliverWork) -> None:
        """Let others have the results from now on: what is not COMPLETED may yet be taken back."""
        if hand.has_completed() and not work.reused:
            self._desk.results.complete(work.session)

    def _require_held(self, caller: Caller, done: Sequence[PieceDone]) -> None:
        """Refuse to say that there is something that is gone, or to send what the purpose withholds."""
        made = series_of(done)
        if not done or not are_held(self._desk, done[0].registrant, made):
            raise Discontinued(Why.MISSING, "the results were deleted meanwhile")
        if not are_shown(self._desk, caller, done[0].registrant, made):
            raise Discontinued(Why.MISSING, "the images are not shown to whoever asked any more")
        if caller.max_matrix is None:
            return
        for selection in selections_of(made):
            within = self._desk.index.select_within(
                selection,
                caller.visibility,
                len(selection.sop_instance_uids),
                caller.max_matrix,
            )
            if within.denser or within.unmeasured:
                raise Discontinued(Why.REFUSED, "results have more pixels than the purpose allows")

    def _send(
        self,
        job: JobContext[DeliverWork],
        hand: Hand,
        wanted: Wanted,
        done: Sequence[PieceDone],
    ) -> None:
        """Wait until every destination has taken the results, or could not."""
        destinations, made = wanted.order.destinations, series_of(done)
        if not destinations:
            return
        registrant, pieces = done[0].registrant, done[0].pieces
        if job.payload.reused:  # whoever asks again wants them again
            for one in made:
                for destination in destinations:
                    self._desk.sent.forget(
                        destination, registrant, one.study_instance_uid, one.series_instance_uid
                    )
        hand.tell(pieces, pieces + 1, "results are sent")
        job.children(list(_errands(job.payload, destinations, registrant, made)))

    def _outputs(
        self, wanted: Wanted, done: Sequence[PieceDone], *, keeps: bool
    ) -> Sequence[Output]:
        destinations = wanted.order.destinations
        here = (self._desk.ae_title,) if keeps or not destinations else ()
        return [
            Output(
                study_instance_uid=one.study_instance_uid,
                series_instance_uid=one.series_instance_uid,
                instances=one.instances,
                retrieve_ae_titles=(*here, *destinations),
            )
            for one in series_of(done)
        ]

    def _tidy(self, job: JobContext[DeliverWork], hand: Hand) -> None:
        """Delete results that are held only until they are delivered, once they all are.

        The workitem has ended before; whoever died in between is made up for.
        """
        if not job.parted or any(one.state is not JobState.DONE for one in job.children(())):
            return
        try:
            wanted, _ = hand.understood()
        except Discontinued:
            return  # an operation that is no longer installed: then they stay
        done = self._desk.results.of(job.payload.session)
        if _is_once(wanted, job.payload):
            take_back(self._desk, job.payload.uid, done)


def _is_once(wanted: Wanted, work: DeliverWork) -> bool:
    """Tell whether results are deleted once they are delivered; those of another workitem never are."""
    return wanted.order.keep_results is Keep.UNTIL_DONE and not work.reused


def _errands(
    work: DeliverWork,
    destinations: Sequence[AETitle],
    registrant: Registrant,
    made: Sequence[Series],
) -> Iterator[Job]:
    """Name every result: whatever else somebody has put into its series leaves by nobody's order."""
    for destination in destinations:
        for one in made:
            uids = [SOPInstanceUID(uid) for _, uid in one.instances]
            for start in range(0, len(uids), MOST_NAMED):
                yield ForwardWork(
                    route="",
                    destination=destination,
                    registrant=registrant,
                    study_instance_uid=one.study_instance_uid,
                    series_instance_uid=one.series_instance_uid,
                    sop_instance_uids=tuple(uids[start : start + MOST_NAMED]),
                    creator=work.creator,
                ).job(cause=f"results of workitem {work.uid}")


def _trouble(job: JobContext[DeliverWork], done: Sequence[PieceDone]) -> Discontinued | None:
    """Why the workitem is not completed though there are results."""
    parts = job.children(()) if job.parted else ()
    failed = [one for one in parts if one.state is not JobState.DONE]
    refused = {_destination_of(one): why for one in failed if (why := _refusal(one))}
    untaken = {_destination_of(one) for one in failed} - refused.keys()
    said = [f"the results were not taken by {', '.join(sorted(untaken))}"] if untaken else []
    for destination, why in sorted(refused.items()):
        said.append(f"the results were not sent to {destination}: {why}")
    if said:
        return Discontinued(Why.FAILED if untaken else Why.REJECTED, "; ".join(said))
    reasons = "" if job.payload.reused else reasons_of(done, done[0].pieces)
    return Discontinued(Why.REFUSED, reasons) if reasons else None


def _refusal(part: Part) -> str:
    """Why whoever asked may not have it sent any more; empty where that is not what failed."""
    return part.error.partition(NOT_ALLOWED)[2]


def _destination_of(part: Part) -> str:
    return str(json.loads(part.payload)["destination"])
