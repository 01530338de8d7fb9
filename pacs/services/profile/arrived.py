"""What the job ``process.arrived`` does: a series that was sent to a profile becomes a workitem.

Input is the series as it is held for its registrant when it is quiet, whichever way its
instances came. The contract must grant processing then, under the purpose it was sent with.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from config.settings import Arrival
from pacs.core.attributes import Level
from pacs.core.caller import Caller, on_behalf
from pacs.core.errors import NotAuthorized
from pacs.core.identifiers import (
    AETitle,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    StudyInstanceUID,
)
from pacs.core.job_ports import JobContext
from pacs.core.ports import AuditTrail, RetrieveIndex, Snapshots
from pacs.core.processing import Keep, ProcessingOrder, Profile
from pacs.core.records import Held, Peer, Place, Provenance, Selection, Snapshot
from pacs.services.gate.loopback import LOCAL
from pacs.services.profile.asked import ARRIVED, ArrivedWork, TidyWork
from pacs.services.profile.desk import Desk, workitem_uid
from pacs.services.profile.grant import granted
from pacs.services.quiet import quiet_s


class SeriesIndex(Protocol):
    """What is held of a series; see ``storage.database.profile``."""

    def files(
        self, registrant: Registrant, study: StudyInstanceUID, series: SeriesInstanceUID
    ) -> Sequence[tuple[Place, datetime]]: ...
    def came_again(self, ae_title: AETitle, object_ids: Sequence[ObjectId]) -> datetime | None: ...


class ProfileFinder(Protocol):
    """Profiles as they are committed now."""

    def find(self, ae_title: AETitle) -> Profile | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What it is made of. ``origin`` tells where a kept file came from."""

    profiles: ProfileFinder
    held: SeriesIndex
    index: RetrieveIndex
    origin: Callable[[Place], Provenance]
    snapshots: Snapshots
    desk: Desk
    audit: AuditTrail
    now: Callable[[], datetime]
    arrival: Arrival
    most: int


class NothingToDo(Exception):
    """There is no workitem to ask for; the text says why."""


class Arrivals:
    """Turns quiet series into workitems."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def look(self, context: JobContext[ArrivedWork]) -> None:
        """Ask for the workitem where it is quiet; look again later where it is not."""
        work = context.payload
        files = self._parts.held.files(
            work.registrant, work.study_instance_uid, work.series_instance_uid
        )
        due = self._due(work, files)
        if due is not None and due > self._parts.now():
            with context.finish({"quiet": False}) as unit:
                unit.enqueue(work.job(due))
            return
        try:
            result, tidy = self._asked(context, files)
        except NothingToDo as why:
            context.log(str(why))
            result, tidy = {"workitem": None, "why": str(why)}, None
        with context.finish(result) as unit:
            if tidy is not None:
                unit.enqueue(tidy.job())

    def _due(self, work: ArrivedWork, files: Sequence[tuple[Place, datetime]]) -> datetime | None:
        """When it is quiet, as far as is known now; the newest file is the first."""
        if not files:
            return None
        latest = files[0][1]
        if work.again:
            ids = [place.object_id for place, _ in files]
            latest = max(latest, self._parts.held.came_again(work.profile, ids) or latest)
        return latest + timedelta(seconds=quiet_s(Level.SERIES, self._parts.arrival))

    def _asked(
        self, context: JobContext[ArrivedWork], files: Sequence[tuple[Place, datetime]]
    ) -> tuple[dict[str, object], TidyWork | None]:
        work, parts = context.payload, self._parts
        profile = parts.profiles.find(work.profile)
        if profile is None or not profile.active:
            raise NothingToDo("the profile was removed or disabled meanwhile")
        snapshot = parts.snapshots.newest()
        caller = self._caller(work, snapshot)
        inputs = self._inputs(work, caller)
        sender = self._sender(context, profile, snapshot, files) if profile.asker else None
        order = _with(profile.order, sender)
        uid = workitem_uid(
            *(work.profile, work.registrant, work.study_instance_uid, work.series_instance_uid),
            *(work.purpose, work.again, *sorted(one.digest for one in inputs)),
        )
        made = parts.desk.ask(caller, uid, order, inputs, f"Profile {work.profile}")
        if made:
            parts.audit.record(
                "processing-asked",
                caller,
                profile=work.profile,
                workitem=uid,
                study=work.study_instance_uid,
                instances=len(inputs),
                destinations=list(order.destinations),
            )
        tidy = None
        # Of what was processed and of nothing else: a further version may be held too.
        processed = fingerprint([one.place for one in inputs])
        if profile.keep_sources is Keep.UNTIL_DONE and order.destinations:
            tidy = TidyWork(
                arrived=work,
                workitem=uid,
                destinations=order.destinations,
                held=processed,
                asked_utc=parts.now(),
            )
        return {"workitem": uid, "instances": len(inputs)}, tidy

    def _caller(self, work: ArrivedWork, snapshot: Snapshot) -> Caller:
        """Who asks: its registrant as its contract stands now. Raises ``NothingToDo``."""
        caller = replace(on_behalf(work.registrant, ARRIVED), ae_title=work.source_ae_title)
        try:
            return granted(caller, work, snapshot, self._parts.now())
        except NotAuthorized as error:
            self._parts.audit.record(
                "processing-not-granted",
                caller,
                profile=work.profile,
                study=work.study_instance_uid,
                reason=str(error),
            )
            raise NothingToDo(f"kept, not processed: {error}") from None

    def _inputs(self, work: ArrivedWork, caller: Caller) -> Sequence[Held]:
        selection = Selection(
            level=Level.SERIES,
            study_instance_uids=(work.study_instance_uid,),
            series_instance_uids=(work.series_instance_uid,),
        )
        most = self._parts.most
        rows = self._parts.index.select(selection, caller.visibility, most)
        if len(rows) > most:
            raise NothingToDo(f"the series has more than {most} instances (process.max_instances)")
        inputs = self._parts.index.fetch([row for row, _, _ in rows])
        if not inputs:
            raise NothingToDo("nothing of the series is left")
        return inputs

    def _sender(
        self,
        context: JobContext[ArrivedWork],
        profile: Profile,
        snapshot: Snapshot,
        files: Sequence[tuple[Place, datetime]],
    ) -> AETitle | None:
        """The peer that sent the newest instance; nobody where it is not known as its registrant's."""
        work = context.payload
        title = self._newest_source(work, files)
        peer = snapshot.peers.get(title)
        if peer is not None and _is_own(peer, work.registrant):
            return title
        reason = (
            f"{title} sent it and is no peer of {work.registrant}: it gets nothing, results stay"
        )
        context.log(reason)
        self._parts.audit.record(
            "processing-sender-unknown",
            None,
            profile=profile.ae_title,
            sender=title,
            contract=work.registrant,
        )
        return None

    def _newest_source(self, work: ArrivedWork, files: Sequence[tuple[Place, datetime]]) -> AETitle:
        """Who sent the newest of what came under the profile's AE title; of what came again, who did so."""
        if work.again:
            return work.source_ae_title
        for place, _ in files:
            origin = self._parts.origin(place)
            if origin.receiving_ae_title == work.profile:
                return origin.source_ae_title
        return work.source_ae_title


def _is_own(peer: Peer, registrant: Registrant) -> bool:
    """Tell whether a peer is the registrant's; nobody's are those of loopback."""
    return registrant == Registrant(LOCAL if peer.subscriber is None else peer.subscriber)


def _with(order: ProcessingOrder, sender: AETitle | None) -> ProcessingOrder:
    if sender is None or sender in order.destinations:
        return order
    return replace(order, destinations=(*order.destinations, sender))


def fingerprint(files: Sequence[Place]) -> str:
    """Tell one set of files from another."""
    told = hashlib.sha256()
    for object_id in sorted(place.object_id for place in files):
        told.update(object_id.encode())
    return told.hexdigest()
