"""What the job ``process.tidy`` does: giving up what was sent to a profile, once all that was asked for is done.

Owns the reasons not to. Whatever is in doubt is kept. What is given up is a deletion in the journal,
which can be undone as any.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from pacs.core.attributes import Level
from pacs.core.caller import Caller, on_behalf
from pacs.core.errors import InstanceCorrupt, InstanceNotFound
from pacs.core.forwarding import FORWARD
from pacs.core.identifiers import (
    AETitle,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    SOPInstanceUID,
    StudyInstanceUID,
)
from pacs.core.job_ports import JobContext
from pacs.core.journal import JournalEntry
from pacs.core.process_results import PieceDone
from pacs.core.processing import Keep, Profile
from pacs.core.records import Place, Provenance
from pacs.core.work import Postpone
from pacs.core.workitems import FINAL_STATES, WorkitemState, WorkitemUID
from pacs.services.profile.arrived import fingerprint
from pacs.services.profile.asked import ARRIVED, TIDY, TidyWork
from pacs.services.profile.desk import Desk, Seen
from pacs.services.quiet import KINDS
from pacs.services.route.asked import FIRE, PRIORS

LOOKED_FOR: Final = timedelta(days=30)
"""After that sources are kept for good: whatever it waits for does not come."""
_SOONEST_S: Final = 1.0
_LATEST_S: Final = 600.0
_SETTLED: Final = timedelta(seconds=5)
"""Processes know of a change within a second: what came so soon after it may have been taken otherwise."""
_WANTING: Final = {
    Level.PATIENT: (PRIORS,),  # sends earlier studies along with the one that it names
    Level.STUDY: (FORWARD, FIRE, *KINDS.values()),
    Level.SERIES: (ARRIVED,),
}
"""Jobs that send or process what is held, or may yet ask for that, by what of their payload says so."""


class TidyIndex(Protocol):
    """What is held, and what else is to be done with it; see ``storage.database.profile``."""

    def files(
        self, registrant: Registrant, study: StudyInstanceUID, series: SeriesInstanceUID
    ) -> Sequence[tuple[Place, datetime]]: ...
    def spared(self, ae_title: AETitle, object_ids: Sequence[ObjectId]) -> frozenset[ObjectId]: ...
    def untaken(
        self, registrant: Registrant, destination: AETitle, uids: Sequence[SOPInstanceUID]
    ) -> int: ...
    def is_wanted(
        self,
        registrant: Registrant,
        study: StudyInstanceUID,
        series: SeriesInstanceUID,
        kinds: Mapping[Level, Sequence[str]],
    ) -> bool: ...
    def said(
        self, kind: str, registrant: Registrant, study: StudyInstanceUID, series: SeriesInstanceUID
    ) -> Sequence[Mapping[str, object]]: ...


class ProfileRows(Protocol):
    """Profiles as they are committed now."""

    def find(self, ae_title: AETitle) -> Profile | None: ...
    def tidies_since(self, ae_title: AETitle) -> datetime | None: ...


class Results(Protocol):
    """What our own performer has made; see ``pacs.core.process_results``."""

    def of(self, session: str) -> Sequence[PieceDone]: ...


class Deleting(Protocol):
    """What is asked of ``pacs.services.delete``."""

    def give_up(
        self,
        caller: Caller,
        chosen: Callable[[], Sequence[ObjectId]],
        *,
        reason: str,
        about: dict[str, str],
    ) -> tuple[JournalEntry | None, int]: ...


class Kept(Exception):
    """Sources stay; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What it is made of. ``origin`` tells where a kept file came from."""

    profiles: ProfileRows
    held: TidyIndex
    origin: Callable[[Place], Provenance]
    desk: Desk
    results: Results
    deletions: Deleting
    now: Callable[[], datetime]


class Tidying:
    """Deletes the sources of profiles that keep them until all is done."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def look(self, context: JobContext[TidyWork]) -> None:
        """Delete where all is done, look again while something is under way, end where it is not to be."""
        work = context.payload
        try:
            count = self._tidied(work)
        except Kept as why:
            context.log(f"sources are kept: {why}")
            with context.finish({"deleted": 0, "why": str(why)}):
                return
        with context.finish({"deleted": count}):
            return

    def _tidied(self, work: TidyWork) -> int:
        """Delete, and give how many files. Raises ``Kept`` or ``Postpone``."""
        self._require_done(work, self._seen(work))
        arrived, parts = work.arrived, self._parts
        since = self._since(arrived.profile)
        self._require_as_it_was(work)  # before anybody has to wait for it
        own = frozenset(self._own(work, since))

        def chosen() -> Sequence[ObjectId]:
            """Said once more while nothing can change."""
            files = self._require_as_it_was(work)
            if self._since(arrived.profile) != since:
                raise Kept("the profile was changed")
            ids = [one.object_id for one in files if one.object_id in own]
            spared = parts.held.spared(arrived.profile, ids)
            return [one for one in ids if one not in spared]

        _, count = parts.deletions.give_up(
            on_behalf(arrived.registrant, TIDY),
            chosen,
            reason=f"profile {arrived.profile}: every destination has the results",
            about={
                "profile": arrived.profile,
                "workitem": work.workitem,
                "study": arrived.study_instance_uid,
            },
        )
        return count

    # --- what must be so -------------------------------------------------------------------

    def _seen(self, work: TidyWork) -> Seen:
        """The workitem in its final state. Raises ``Kept`` or ``Postpone``."""
        seen = self._parts.desk.seen(work.workitem)
        if seen is None:
            raise Kept("the workitem is no longer known")
        if seen.state not in FINAL_STATES:
            self._wait(work, f"the workitem is {seen.state.value}")
        return seen

    def _require_done(self, work: TidyWork, seen: Seen) -> None:
        if seen.state is not WorkitemState.COMPLETED:
            raise Kept(f"the workitem is {seen.state.value}")
        results = self._results(work, seen)
        if not results or not work.destinations:
            raise Kept("no result was sent anywhere")
        for one in work.destinations:
            missing = self._parts.held.untaken(work.arrived.registrant, one, results)
            if missing:
                raise Kept(f"{one} has not taken {missing} of {len(results)} results")

    def _results(self, work: TidyWork, seen: Seen) -> Sequence[SOPInstanceUID]:
        """What our own performer made for this workitem, and all of it. Raises ``Kept``.

        Others may claim a workitem and end it with any instances; only a session of ours has pieces.
        """
        done = self._parts.results.of(seen.session) if seen.session else ()
        if not done or any(one.pieces != len(done) for one in done):
            raise Kept("its results were not made here, or not for this workitem")
        whose = (work.arrived.registrant, work.arrived.study_instance_uid)
        if seen.registrant != whose[0] or any(
            (one.registrant, one.study_instance_uid) != whose for one in done
        ):
            raise Kept("its results are another's, or of another study")
        if any(one.reasons for one in done):
            raise Kept("some of it gave no result")
        made = [
            SOPInstanceUID(uid) for one in done for each in one.made for _, uid in each.instances
        ]
        if not set(seen.results) <= set(made):
            raise Kept("the workitem names results that were not made here")
        return made

    def _since(self, ae_title: AETitle) -> datetime:
        """Since when the profile gives up its sources. Raises ``Kept``."""
        profile = self._parts.profiles.find(ae_title)
        since = self._parts.profiles.tidies_since(ae_title)
        if profile is None or not profile.active:
            raise Kept("the profile was removed or disabled")
        if profile.keep_sources is not Keep.UNTIL_DONE or since is None:
            raise Kept("the profile keeps its sources now")
        return since + _SETTLED

    def _require_as_it_was(self, work: TidyWork) -> Sequence[Place]:
        """See that all that is held was processed, and nobody waits for it. Raises ``Kept`` or ``Postpone``."""
        arrived, held = work.arrived, self._parts.held
        series = (arrived.registrant, arrived.study_instance_uid, arrived.series_instance_uid)
        files = [place for place, _ in held.files(*series)]
        if fingerprint(files) != work.held:
            raise Kept("the series is another one than that was processed, or has further versions")
        if held.is_wanted(*series, _WANTING):
            self._wait(work, "it is still to be sent or processed, or that has failed")
        for said in held.said(ARRIVED, *series):
            seen = self._parts.desk.seen(WorkitemUID(str(said.get("workitem"))))
            if seen is not None and seen.state not in FINAL_STATES:
                self._wait(work, "another workitem has it as its input")
        return files

    def _own(self, work: TidyWork, since: datetime) -> Iterator[ObjectId]:
        """The files that came under the profile's AE title, since it gives up what comes so."""
        arrived = work.arrived
        for place, received_utc in self._parts.held.files(
            arrived.registrant, arrived.study_instance_uid, arrived.series_instance_uid
        ):
            if received_utc < since:
                continue
            with suppress(InstanceCorrupt, InstanceNotFound):  # damage is for verify to report
                if self._parts.origin(place).receiving_ae_title == arrived.profile:
                    yield place.object_id

    def _wait(self, work: TidyWork, why: str) -> None:
        """Look again later, the rarer the longer it takes. Raises ``Postpone``, in the end ``Kept``."""
        waited = self._parts.now() - work.asked_utc
        if waited > LOOKED_FOR:
            raise Kept(f"for {LOOKED_FOR.days} days {why}")
        after_s = min(max(waited.total_seconds() / 4, _SOONEST_S), _LATEST_S)
        raise Postpone(why, after_s=after_s)
