"""Forwarding: the handler of its jobs, and how an administrator asks for one. PS3.4 Annex B.

Decides to whom is sent; in whose name, and whether it may leave, is ``leave``'s to say, and ``errand`` does it. Which
studies go where by themselves is ``pacs.services.route``'s to say.
"""

from datetime import UTC, datetime

from pacs.core.caller import Caller
from pacs.core.errors import DestinationUnknown, EntryNotFound
from pacs.core.forwarding import ForwardWork
from pacs.core.identifiers import AETitle, Registrant, StudyInstanceUID
from pacs.core.job_ports import JobContext
from pacs.core.records import Peer, Snapshot
from pacs.core.routing import Route
from pacs.core.work import Hold, Permanent
from pacs.services.forward.desk import Desk
from pacs.services.forward.errand import Errand
from pacs.services.forward.leave import sender


class Forwarding:
    """Makes destinations hold what is asked for. Safe to use from many threads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def send(self, context: JobContext[ForwardWork]) -> None:
        """Handle one job of kind ``FORWARD``."""
        work = context.payload
        snapshot = self._desk.snapshots.newest()
        peer, route = self._peer(work, snapshot), self._route(work)
        caller = sender(self._desk, work, snapshot, context.id)
        Errand(self._desk, context, peer, route, caller).fulfil()

    def _peer(self, work: ForwardWork, snapshot: Snapshot) -> Peer:
        peer = snapshot.peers.get(work.destination)
        if peer is None:
            raise Permanent(f"no peer is named {work.destination}")
        if not snapshot.may_receive(peer, datetime.now(UTC)):
            raise Hold(f"the contract of {peer.subscriber} does not hold")
        return peer

    def _route(self, work: ForwardWork) -> Route | None:
        route = self._desk.judge.route(work.route) if work.route else None
        if work.route and route is None:
            raise Permanent(f"route {work.route} was removed")
        return route

    def ask(
        self,
        caller: Caller,
        destination: AETitle,
        study: StudyInstanceUID,
        *,
        route: str = "",
        again: bool = False,
    ) -> int:
        """Have a study sent, as ``route`` would change it; gives how many registrants' it is.

        ``again``: also what the destination was sent before. Raises ``DestinationUnknown`` or
        ``EntryNotFound``.
        """
        allowed = caller.destinations is None or destination in caller.destinations
        if not allowed or destination not in self._desk.snapshots.newest().peers:
            raise DestinationUnknown(f"no peer is named {destination}")
        if route and self._desk.judge.route(route) is None:
            raise EntryNotFound(f"no route is named {route}")
        holders = [one for one in self._desk.sent.holders(study) if _sees_all(caller, one, study)]
        if not holders:
            raise EntryNotFound("no instance of that study is held")
        with self._desk.records.transaction() as unit:
            for registrant in holders:
                if again:
                    self._desk.sent.forget(destination, registrant, study)
                work = ForwardWork(
                    route=route,
                    destination=destination,
                    registrant=registrant,
                    study_instance_uid=study,
                )
                unit.enqueue(work.job(cause=f"asked by {caller.subscriber}"))
        self._desk.audit.record(
            "forward-asked", caller, study=study, destination=destination, again=again
        )
        return len(holders)

    def purge(self) -> int:
        """Forget what was sent longer ago than the settings say, and what is held no more."""
        return self._desk.sent.purge(self._desk.settings.keep_s)


def _sees_all(caller: Caller, registrant: Registrant, study: StudyInstanceUID) -> bool:
    """Tell whether everything a registrant holds of a study is visible: all of it would be sent."""
    seen = caller.visibility
    return seen.shows(registrant, study) and seen.modalities is None
