"""Polls attached: the job that runs one, when each is due, and what a run is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from pacs.core.caller import Caller, Right, on_behalf
from pacs.core.errors import EntryNotFound
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.job_ports import JobContext
from pacs.core.polling import Poll
from pacs.core.ports import AuditTrail, Records
from pacs.core.records import Peer
from pacs.core.work import Hold, Permanent
from pacs.jobs.kinds import JobKind, Schedule
from pacs.jobs.schedules import check_cron, zone
from pacs.services.gate import LOCAL
from pacs.services.poll import RUN, Polls, PollWork, job_of, polled_peer
from pacs.services.poll.receiver import IngestReceiver
from pacs.services.poll.run import Parts, PeerAway, Run
from scu.poll import PollSCU
from storage.database.connection import Database
from storage.database.job_queue import lift
from storage.database.peer import PeerTable
from storage.database.poll import PollTable
from storage.database.poll_memory import PollMemory
from storage.database.subscriber import ContractTable

if TYPE_CHECKING:
    from pacs.app.archive import Archive
    from pacs.app.extension import Attached


def polls(database: Database, records: Records, audit: AuditTrail) -> Polls:
    """Make what the command line uses."""
    return Polls(
        PollTable(database),
        PeerTable(database),
        PollMemory(database),
        records=records,
        audit=audit,
        check_cron=check_cron,
        go_on=partial(_go_on, database),
    )


def _go_on(database: Database, queue: str) -> None:
    """Let a queue go on that is held because its peer was away."""
    with database.transaction():
        lift(database, queue)


def attach(archive: "Archive", _: object) -> "Attached":
    """Give the job and the schedules."""
    from pacs.app.extension import Attached

    polling = Polling(archive)
    kind = JobKind(handler=polling.run, payload=PollWork, queue="poll")
    return Attached(jobs={RUN: kind}, schedules_now=polling.schedules)


class Polling:
    """Runs polls in one process."""

    def __init__(self, archive: "Archive") -> None:
        self._archive = archive
        self._rows = PollTable(archive.database)
        self._peers = PeerTable(archive.database)
        self._contracts = ContractTable(archive.database)
        settings = archive.settings
        self._ae_title = AETitle(settings.dicom.ae_title)
        named = settings.jobs.time_zone
        self._parts = Parts(
            peers=PollSCU(
                ae_title=self._ae_title, bounds=settings.association, polling=settings.poll
            ),
            memory=PollMemory(archive.database),
            audit=archive.audit,
            settings=settings.poll,
            receiver=self._receiver,
            has_room=lambda: archive.store.free_bytes() > 0,
            today=lambda: datetime.now(zone(named)).date(),
        )

    def schedules(self) -> Sequence[Schedule]:
        """When each active poll of a peer that is known is due, as of now."""
        snapshot = self._archive.snapshots.current()
        return [
            Schedule(name=f"poll:{one.name}", cron=one.cron, job=job_of(one))
            for one in snapshot.polls
            if one.active and one.ae_title in snapshot.peers
        ]

    def run(self, context: JobContext[PollWork]) -> Mapping[str, int] | None:
        """Run one poll. Raises ``Hold`` while its peer is away."""
        work = context.payload
        poll = next((one for one in self._rows.list() if one.name == work.poll), None)
        if poll is None or not (poll.active or work.asked):
            context.log("the poll was removed or disabled meanwhile")
            return None
        try:
            # Not of the snapshot, which may be older than the job.
            peer = polled_peer(self._peers.list(), poll)
        except EntryNotFound as error:
            raise Permanent(str(error)) from error
        caller = self._caller(peer)
        if caller is None:
            trouble = f"the contract of {peer.subscriber} does not let it register images now"
            self._rows.note_run(poll.name, None, trouble)
            context.log(trouble)
            return None
        return self._ran(context, poll, peer, caller)

    def _ran(
        self, context: JobContext[PollWork], poll: Poll, peer: Peer, caller: Caller
    ) -> Mapping[str, int]:
        run = Run(self._parts, poll, peer, caller=caller, watch=context)
        try:
            result = asdict(run.go())
        except PeerAway as away:
            self._rows.note_run(poll.name, None, str(away))
            context.log(str(away))
            raise Hold(str(away)) from away
        if not context.cancelled():
            self._rows.note_run(poll.name, result, run.trouble)
        return result

    def _caller(self, peer: Peer) -> Caller | None:
        """For whom it is: the peer's subscriber while its contract lets it register images, else nobody.

        What comes from a peer that is nobody's is held as what loopback sends.
        """
        owner, issuer = LOCAL, self._archive.settings.identity.issuer_of_patient_id
        if peer.subscriber is not None:
            contract = self._contracts.find(peer.subscriber)
            if contract is None or not contract.holds(datetime.now(UTC)):
                return None
            if Right.REGISTER not in contract.rights:
                return None
            owner, issuer = contract.subscriber, contract.issuer_of_patient_id
        return replace(
            on_behalf(Registrant(owner), RUN),
            ae_title=peer.ae_title,
            address=peer.host,
            issuer_of_patient_id=issuer,
        )

    def _receiver(self, caller: Caller, cancelled: Callable[[], bool]) -> IngestReceiver:
        archive = self._archive
        return IngestReceiver(
            archive.ingest,
            archive.store,
            archive.audit,
            caller=caller,
            receiving_ae_title=self._ae_title,
            cancelled=cancelled,
            most=archive.settings.poll.max_study_instances,
        )
