"""In whose name something is sent, and whether it may leave still: as contracts stand at each run of the job.

What a route or an administrator has sent is sent in the name of whose images they are. What anybody
else asked for is sent in that one's name, and only as far as its contract lets it have them: between
asking and a run there may be days. Refuses to know what was asked for.
"""

from datetime import UTC, datetime

from pacs.core.caller import Caller, Visibility, on_behalf
from pacs.core.errors import NotAuthorized, ProcessingRefused
from pacs.core.forwarding import NOT_ALLOWED, ForwardWork
from pacs.core.records import Snapshot
from pacs.core.work import Permanent
from pacs.services.forward.desk import Desk
from pacs.services.forward.survey import selection_of
from pacs.services.process.standing import require_destinations, standing


def sender(desk: Desk, work: ForwardWork, snapshot: Snapshot, job: int) -> Caller:
    """Give in whose name it is sent: who is on record, and pays.

    Raises ``Permanent`` where whoever asked may not have it sent any more.
    """
    own = on_behalf(work.registrant, f"job {job}")
    creator = work.creator
    if creator is None or creator.is_admin:  # an admin pays for nothing
        return own
    now_utc = datetime.now(UTC)
    try:
        caller = standing(creator, snapshot, now_utc)
        require_destinations(caller, [work.destination], snapshot, now_utc)
        _require_visible(desk, caller, work)
    except (NotAuthorized, ProcessingRefused) as error:
        desk.audit.record(
            "forward-refused",
            creator.named(),
            study=work.study_instance_uid,
            destination=work.destination,
            job=job,
            cause=str(error),
        )
        # What a contract lacks is for the audit trail; whoever asked is told that it grants too little.
        is_rights = isinstance(error, NotAuthorized)
        said = "the contract grants no processing" if is_rights else str(error)
        raise Permanent(f"{NOT_ALLOWED}{said}") from error
    return caller


def _require_visible(desk: Desk, caller: Caller, work: ForwardWork) -> None:
    """Refuse what is not shown to the caller, or is denser than its purpose allows. Raises ``ProcessingRefused``."""
    seen = caller.visibility
    if not seen.shows(work.registrant, work.study_instance_uid):
        raise ProcessingRefused("the images are not shown to whoever asked any more")
    if seen.modalities is None and caller.max_matrix is None:
        return
    index, selection, most = desk.index, selection_of(work), desk.settings.max_instances
    every = Visibility(registrants=frozenset({work.registrant}))
    shown = seen.only(work.registrant)
    if len(index.select(selection, shown, most)) < len(index.select(selection, every, most)):
        raise ProcessingRefused("the images are not of a kind that the purpose shows")
    if caller.max_matrix is not None:
        within = index.select_within(selection, every, most, caller.max_matrix)
        if within.denser or within.unmeasured:
            raise ProcessingRefused("images have more pixels than the purpose allows")
