"""One run of a poll: what is new at the peer is listed, compared, fetched; PS3.4 Sections C.4.1 to C.4.3.

Owns the order of things and what becomes of failures. What is asked for is
``choice``'s to say. Whatever happens in the middle, the index and the memory say
what is missing, so the next run goes on from there.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from config import settings
from pacs.core.caller import Caller
from pacs.core.errors import CapacityExhausted, PacsError, PeerRefused, PeerUnreachable
from pacs.core.identifiers import SOPInstanceUID, StudyInstanceUID
from pacs.core.poll_ports import (
    Expected,
    InstanceMemory,
    InstanceThere,
    Listed,
    Memory,
    PolledPeer,
    PolledPeers,
    StudyMemory,
    StudyThere,
)
from pacs.core.polling import FetchBy, Poll
from pacs.core.ports import AuditTrail
from pacs.core.records import Peer
from pacs.services.poll.choice import Bounds, Request, is_open, missing, requests
from pacs.services.poll.receiver import IngestReceiver

_LOG = logging.getLogger("pacs.poll")
MOST_BREAKS = 3
"""Studies in a row that could not be gone through; then the peer is left alone for a while."""
ROUND = 50
"""A multiple of it, from twice that on, may be where a peer stops to answer: then it is asked hour by hour."""
_HOURS = 24
_LOOK_UP_S = 0.5


class Watch(Protocol):
    """Who watches a run; of ``pacs.core.job_ports.JobContext`` what it needs."""

    def progress(self, done: int, total: int) -> None: ...
    def log(self, line: str) -> None: ...
    def cancelled(self) -> bool: ...


class PeerAway(PacsError):
    """The peer is not there, or does nothing for now; or we cannot take anything in."""


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run came to, in numbers. Studies were ``looked_at`` instance by instance."""

    studies: int = 0
    looked_at: int = 0
    missing: int = 0
    fetched: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What runs are made with, the same for all of them."""

    peers: PolledPeers
    memory: Memory
    audit: AuditTrail
    settings: settings.Poll
    receiver: Callable[[Caller, Callable[[], bool]], IngestReceiver]
    has_room: Callable[[], bool]
    today: Callable[[], date]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


class Run:
    """One run of one poll. Raises ``PeerAway`` where it is pointless to go on for now."""

    def __init__(
        self, parts: Parts, poll: Poll, peer: Peer, *, caller: Caller, watch: Watch
    ) -> None:
        self._parts = parts
        self._poll = poll
        self._peer = peer
        self._caller = caller
        self._watch = watch
        self._ae_title = peer.ae_title
        self._bounds = Bounds(
            max_attempts=parts.settings.max_attempts, retry_s=parts.settings.retry_s
        )
        self._asked = self._breaks = 0
        self.result = Result()
        self.trouble = ""
        """What broke last, where something did and the run went on."""

    def go(self) -> Result:
        """Look at every study that may hold something new, and fetch it."""
        try:
            self._go()
        finally:
            self._parts.audit.record(
                "poll",
                self._caller,
                poll=self._poll.name,
                peer=self._ae_title,
                **asdict(self.result),
            )
        age = timedelta(days=self._parts.settings.remember_days)
        self._parts.memory.forget(self._parts.now() - age)
        return self.result

    def _go(self) -> None:
        studies = self._found()
        self.result.studies = len(studies)
        memory = self._parts.memory.studies(
            self._ae_title, [one.study_instance_uid for one in studies]
        )
        now = self._parts.now()
        known = [(one, memory.get(one.study_instance_uid)) for one in studies]
        open_ = [(one, kept or StudyMemory()) for one, kept in known if is_open(one, kept, now)]
        # Whatever breaks goes last, so that it keeps nothing else from coming.
        for study, kept in sorted(open_, key=lambda each: each[1].breaks):
            if self._watch.cancelled():
                return
            if self._asked >= self._poll.max_instances:
                self._watch.log(f"stopped at {self._asked} instances, the next run goes on")
                return
            self._visit(study, kept)

    # --- what is there -------------------------------------------------------------------

    def _found(self) -> list[StudyThere]:
        """List the studies of the window, the newest day first, each once."""
        found: dict[StudyInstanceUID, StudyThere] = {}
        today = self._parts.today()
        with self._away(), self._parts.peers.asking(self._peer) as peer:
            for back in range(self._poll.window_days + 1):
                for one in self._of_day(peer, today - timedelta(days=back)):
                    found.setdefault(one.study_instance_uid, one)
                if self._watch.cancelled():
                    break
        return list(found.values())

    def _of_day(self, peer: PolledPeer, day: date) -> Sequence[StudyThere]:
        """Ask for a day; hour by hour as well where the peer may not have said all of it."""
        filters = self._poll.filters
        whole_day = peer.studies(day, filters)
        self._mention(f"studies of {day}", whole_day)
        many = len(whole_day.there)
        if whole_day.whole and (many < 2 * ROUND or many % ROUND):
            return whole_day.there
        found = {one.study_instance_uid: one for one in whole_day.there}
        for hour in range(_HOURS):
            part = peer.studies(day, filters, hour=hour)
            found.update({one.study_instance_uid: one for one in part.there})
            if not part.whole:
                self._watch.log(f"studies of {day}, hour {hour}: too many, some are left out")
        return list(found.values())

    def _mention(self, what: str, listed: Listed[StudyThere] | Listed[InstanceThere]) -> None:
        if listed.odd:
            self._watch.log(f"{what}: {listed.odd} answers of {self._ae_title} make no sense")
        if listed.ignored and self._poll.filters:
            self._watch.log(f"{what}: {self._ae_title} does not support all of the keys")

    # --- one study -----------------------------------------------------------------------

    def _visit(self, study: StudyThere, kept: StudyMemory) -> None:
        uid = study.study_instance_uid
        if not self._parts.has_room():
            raise PeerAway("no space is left for what would be fetched")
        with self._away():
            asking = self._parts.peers.asking(self._peer)
            with asking as peer:
                try:
                    listed = peer.instances(uid)
                except (PeerRefused, PeerUnreachable) as failure:
                    self._broke(study, kept, failure)
                    return
        self._mention(f"study {uid}", listed)
        self.result.looked_at += 1
        wanted = self._compared(uid, listed)
        self.result.missing += len(wanted)
        if wanted and not self._fetched(study, kept, listed, wanted):
            return
        self._breaks = 0
        self._leave(study, listed)

    def _compared(
        self, uid: StudyInstanceUID, listed: Listed[InstanceThere]
    ) -> list[InstanceThere]:
        """Choose what is missing, and remember what is not."""
        memory = self._parts.memory
        uids = [one.sop_instance_uid for one in listed.there]
        known = memory.instances(self._ae_title, uid)
        held = memory.held(self._caller.registrant, uid, uids)
        self._came(uid, [one for one in held if one not in known or not known[one].came])
        return missing(listed.there, held, known, self._bounds, self._parts.now())

    def _came(self, study: StudyInstanceUID, uids: Sequence[SOPInstanceUID]) -> None:
        if uids:
            self._parts.memory.note(
                self._ae_title, study, {uid: InstanceMemory(came=True) for uid in uids}
            )

    def _leave(self, study: StudyThere, listed: Listed[InstanceThere]) -> None:
        """Remember how a study was left: nothing to ask for, or something to try later."""
        uid, memory = study.study_instance_uid, self._parts.memory
        known = memory.instances(self._ae_title, uid)
        later: list[datetime] = []
        left = False
        for one in listed.there:
            state = known.get(one.sop_instance_uid)
            if state is None:
                left = True  # the bound of this run was reached
            elif not state.came and state.attempts < self._bounds.max_attempts:
                later.append(state.due_utc or self._parts.now())
        counted = study.instances if listed.whole and not left else None
        if counted is not None and len(listed.there) < counted:
            counted = None  # it has more than it lists: look again
        memory.remember(
            self._ae_title, uid, StudyMemory(instances=counted, due_utc=min(later, default=None))
        )

    def _broke(self, study: StudyThere, kept: StudyMemory, failure: PacsError) -> None:
        """A study could not be gone through: later again, less of it at once; and on to the next.

        What a peer refuses may have nothing to do with the study: then it is not put off further and further.
        """
        breaks = kept.breaks + 1
        if isinstance(failure, PeerRefused):
            breaks = min(breaks, 2)
        due = self._bounds.again(breaks, self._parts.now())
        self._parts.memory.remember(
            self._ae_title, study.study_instance_uid, StudyMemory(due_utc=due, breaks=breaks)
        )
        self.trouble = f"study {study.study_instance_uid}: {failure}"
        self._watch.log(self.trouble)
        _LOG.warning("poll-broke poll=%s peer=%s", self._poll.name, self._ae_title)
        self._breaks += 1
        if self._breaks >= MOST_BREAKS:
            raise PeerAway(str(failure)) from failure

    # --- fetching ------------------------------------------------------------------------

    def _fetched(
        self,
        study: StudyThere,
        kept: StudyMemory,
        listed: Listed[InstanceThere],
        wanted: Sequence[InstanceThere],
    ) -> bool:
        """Ask for what is missing, on one association; tells whether it went to its end."""
        plan = requests(
            study.study_instance_uid,
            listed,
            wanted,
            room=self._poll.max_instances - self._asked,
            at_once=self._parts.settings.uids_per_request,
            breaks=kept.breaks,
        )
        receiver = self._parts.receiver(self._caller, self._watch.cancelled)
        expected = _expected(study, wanted)
        before = self.result.fetched
        with self._away(), self._way(receiver, expected) as peer:
            for number, request in enumerate(plan):
                if number:
                    self._pause()
                if self._watch.cancelled():
                    return False
                try:
                    self._ask(peer, request, receiver)
                except (PeerRefused, PeerUnreachable) as failure:
                    if not self._watch.cancelled():
                        self._broke(study, kept, failure)
                    return False
        self._watch.log(
            f"study {study.study_instance_uid}: {len(wanted)} of {len(listed.there)} missing, "
            f"{self.result.fetched - before} came"
        )
        return True

    def _pause(self) -> None:
        until_s = time.monotonic() + self._parts.settings.pause_s
        while (rest_s := until_s - time.monotonic()) > 0 and not self._watch.cancelled():
            time.sleep(min(rest_s, _LOOK_UP_S))

    def _ask(self, peer: PolledPeer, request: Request, receiver: IngestReceiver) -> None:
        """Send one request, and look in the index for what came, whatever the peer says.

        What did not come is an attempt that failed, unless we could not take it
        in, or the association broke with several of them under way.
        """
        self._asked += len(request.instances)
        said, broken = "", None
        try:
            said = peer.fetch(request.wanted, self._watch.cancelled)
        except (PeerRefused, PeerUnreachable) as failure:
            broken = failure
        study = request.wanted.study_instance_uid
        came = self._parts.memory.held(self._caller.registrant, study, request.instances)
        self._came(study, sorted(came))
        absent = [one for one in request.instances if one not in came]
        self.result.fetched += len(came)
        if receiver.failure is not None:
            raise PeerAway(str(receiver.failure)) from receiver.failure
        found_it = isinstance(broken, PeerUnreachable) and len(request.instances) == 1
        if absent and (broken is None or (found_it and not self._watch.cancelled())):
            self._failed(study, absent, said or str(broken))
        self._watch.progress(self.result.fetched, self.result.missing)
        if broken is not None:
            raise broken

    def _failed(
        self, study: StudyInstanceUID, absent: Sequence[SOPInstanceUID], trouble: str
    ) -> None:
        known = self._parts.memory.instances(self._ae_title, study)
        now = self._parts.now()
        tried: dict[SOPInstanceUID, InstanceMemory] = {}
        for uid in absent:
            attempts = known[uid].attempts + 1 if uid in known else 1
            due = self._bounds.again(attempts, now)
            tried[uid] = InstanceMemory(came=False, attempts=attempts, due_utc=due)
        self._parts.memory.note(self._ae_title, study, tried, trouble)
        self.result.failed += len(absent)
        self._watch.log(f"study {study}: {len(absent)} did not come: {trouble}")

    @contextmanager
    def _way(self, receiver: IngestReceiver, expected: Expected) -> Iterator[PolledPeer]:
        peers = self._parts.peers
        if self._poll.by is FetchBy.MOVE:
            opening = peers.moving(self._peer)
        else:
            opening = peers.getting(self._peer, expected, receiver)
        with opening as peer:
            yield peer

    @contextmanager
    def _away(self) -> Iterator[None]:
        """Say of a peer that takes no association, or answers nothing at all, that it is away."""
        try:
            yield
        except (PeerRefused, PeerUnreachable, CapacityExhausted) as failure:
            raise PeerAway(str(failure)) from failure


def _expected(study: StudyThere, wanted: Sequence[InstanceThere]) -> Expected:
    """Say what will come, by the best that the peer has told."""
    classes = {one.sop_class_uid for one in wanted if one.sop_class_uid}
    if all(one.sop_class_uid for one in wanted):
        return Expected(sop_class_uids=tuple(sorted(classes)))
    if study.sop_class_uids:
        return Expected(sop_class_uids=tuple(sorted(classes | set(study.sop_class_uids))))
    return Expected(modalities=tuple(sorted({one.modality for one in wanted})))
