"""Having the destination answer for what it was sent, and what follows from what it says. PS3.4 Annex J.

Asks ``CommitmentWork`` as parts of the job; knows nothing of how it is asked.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pacs.core.forwarding import CommitmentWork, ForwardWork
from pacs.core.identifiers import ObjectId
from pacs.core.job_ports import JobContext
from pacs.core.records import Job
from pacs.core.routing import Commitment, Route
from pacs.core.sent import SentRow, SentState
from pacs.core.work import JobState, Part, Permanent, Retry
from pacs.services.forward.desk import Desk

_REFERENCES = 500
"""References in one request: what may fail of them fits the result of one job."""
_NAMED = 5


@dataclass(slots=True)
class _Answers:
    """What the parts brought back, by SOP Instance UID."""

    asked: set[str] = field(default_factory=set)
    committed: set[str] = field(default_factory=set)
    failed: dict[str, int] = field(default_factory=dict)
    offered: bool = True
    troubles: list[str] = field(default_factory=list)


def ask(
    desk: Desk, context: JobContext[ForwardWork], route: Route, rows: Sequence[SentRow]
) -> bool:
    """Have the destination answer for what it has not answered for yet; leaves the handler meanwhile.

    Tells whether something was sent meanwhile that nobody has asked about. Raises ``Retry`` where
    the destination does not hold it all, ``Permanent`` where it said nothing.
    """
    open_rows = [one for one in rows if one.state is SentState.SENT and not one.committed]
    if not open_rows:
        return False
    work = context.payload
    answers = _read(context.children(_requests(context, route, open_rows)))
    _note(desk, work, open_rows, answers)
    if answers.troubles:
        raise Permanent(f"the destination does not answer for them: {answers.troubles[0]}")
    if answers.failed:
        lacking = _named(answers.failed, len(open_rows))
        context.log(lacking)  # the job's last error goes once another attempt ended well
        raise Retry(lacking)
    if not answers.offered:
        context.log("the destination does not offer Storage Commitment")
        return False
    return any(one.sop_instance_uid not in answers.asked for one in open_rows)


def _requests(context: JobContext[ForwardWork], route: Route, rows: Sequence[SentRow]) -> list[Job]:
    references = [(one.sop_class_uid, one.sop_instance_uid) for one in rows]
    return [
        CommitmentWork(
            destination=context.payload.destination,
            references=tuple(references[start : start + _REFERENCES]),
            required=route.commitment is Commitment.REQUIRED,
        ).job(cause=f"job {context.id}")
        for start in range(0, len(references), _REFERENCES)
    ]


def _read(parts: Sequence[Part]) -> _Answers:
    answers = _Answers()
    for part in parts:
        uids = {uid for _, uid in json.loads(part.payload)["references"]}
        answers.asked |= uids
        if part.state is not JobState.DONE:
            answers.troubles.append(part.error or part.state.value)
            continue
        result = json.loads(part.result or "{}")
        if not result.get("offered"):
            answers.offered = False
            continue
        failed = {uid: int(reason) for uid, reason in result.get("failed", {}).items()}
        answers.failed.update(failed)
        answers.committed |= uids - failed.keys()
    return answers


def _note(desk: Desk, work: ForwardWork, rows: Sequence[SentRow], answers: _Answers) -> None:
    of_uid: dict[str, list[ObjectId]] = defaultdict(list)
    for one in rows:
        of_uid[one.sop_instance_uid].append(one.object_id)
    held = [one for uid in sorted(answers.committed) for one in of_uid.get(uid, ())]
    lacking = {one: reason for uid, reason in answers.failed.items() for one in of_uid.get(uid, ())}
    with desk.records.transaction():
        desk.sent.commit(work.destination, held)
        desk.sent.disclaim(work.destination, lacking)


def _named(failed: dict[str, int], total: int) -> str:
    first = ", ".join(
        f"{uid} (reason {reason:04X})" for uid, reason in list(failed.items())[:_NAMED]
    )
    more = ", …" if len(failed) > _NAMED else ""
    return f"{len(failed)} of {total} instances were not committed: {first}{more}"
