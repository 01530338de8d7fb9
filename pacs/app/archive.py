"""The archive, put together: every concrete class is named here and nowhere else.

``open_archive`` gives one process's ``Archive``; the command line uses its
services as they are, ``pacs.app.serve`` puts service classes in front of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom.config

from config.load import Loaded
from config.settings import Settings
from pacs.app.extension import Attached, Extension, installed
from pacs.app.gate import contract_gate
from pacs.app.headers import header_reader
from pacs.app.operations import require_sound
from pacs.app.poll import polls
from pacs.app.provided import OURS
from pacs.app.reduced import Reducer
from pacs.app.subscriber import enrolments
from pacs.app.workitems import workitems
from pacs.association.tls import CALLS
from pacs.core.errors import NotInitialized, SettingsInvalid
from pacs.core.identifiers import AETitle
from pacs.core.ports import Failures, Gate
from pacs.jobs.broker import Bell
from pacs.observe.audit import FileAuditTrail
from pacs.services.conflict import Conflicts
from pacs.services.delete import Deletions
from pacs.services.delivery.shipment import Shipping
from pacs.services.find import Find
from pacs.services.gate import AskingGate
from pacs.services.job import Jobs
from pacs.services.ls import Listing
from pacs.services.outbox import Outbox
from pacs.services.peer import Peers
from pacs.services.poll import Polls
from pacs.services.reindex import Reindex
from pacs.services.retrieve import Retrieve
from pacs.services.stats import Statistics
from pacs.services.store import Ingest
from pacs.services.usage import UsageAccount
from pacs.services.verify import Verification
from pacs.services.workitems import Workitems
from processing.datasets.transcode import SandboxedTranscoder
from scu.store import StoreSCU
from storage.database.conflict import ConflictTable
from storage.database.connection import Database
from storage.database.decisions import Decisions
from storage.database.delete import DeletionTable
from storage.database.find import DatabaseFindIndex
from storage.database.job_list import JobList
from storage.database.jobs import JobTable
from storage.database.outbox import OutboxTable
from storage.database.peer import PeerTable
from storage.database.reindex import WholeIndex
from storage.database.retrieve import DatabaseRetrieveIndex
from storage.database.snapshot import DatabaseSnapshots
from storage.database.stats import DatabaseCounts
from storage.database.store import DatabaseRecords
from storage.database.subscriber import ContractTable
from storage.database.usage import UsageTable
from storage.instances.disk import DiskStore
from storage.instances.receivers import is_worker
from storage.journal import Journal

# Odd values are the field's daily bread: pydicom's warnings would quote them, patient data included.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Everything one process knows of the archive."""

    home: Path
    scratch: Path
    """Folder of this process for files that are not kept; emptied at its next start."""
    settings: Settings
    gate: AskingGate
    audit: FileAuditTrail
    database: Database
    store: DiskStore
    transcoder: SandboxedTranscoder
    snapshots: DatabaseSnapshots
    ingest: Ingest
    find: Find
    shipping: Shipping
    retrieve: Retrieve
    peers: Peers
    listing: Listing
    statistics: Statistics
    deletions: Deletions
    conflicts: Conflicts
    verification: Verification
    reindex: Reindex
    jobs: Jobs
    polls: Polls
    workitems: Workitems
    usage: UsageAccount
    job_table: JobTable
    wake: Callable[[str], None]
    records: DatabaseRecords
    outbox: Outbox
    extensions: Mapping[str, Attached]
    installed: Sequence[Extension] = ()
    """Those of other distributions."""


LOCK = "serve.lock"
"""What a server holds of its home; it stays when the server ends."""


def has_served(home: Path) -> bool:
    """Tell whether a server has ever had this home, and not only commands or workers."""
    return (home / LOCK).exists()


def store_folder(home: Path, settings: Settings) -> Path:
    """Where instances are kept."""
    return home / settings.storage.path


@contextmanager
def open_archive(
    home: Path,
    loaded: Loaded,
    *,
    gate: Gate | None = None,
    extensions: Sequence[Extension] | None = None,
    receiver: str = "",
    failures: Failures | None = None,
) -> Iterator[Archive]:
    """Open the archive of a home that ``initialize`` has made. Raises ``NotInitialized``.

    ``extensions`` are attached after ours; those installed unless given. A
    process that receives beside others names itself as ``receiver``: it gets
    folders of its own for what is on its way, and counts ``failures`` with them.
    """
    if not store_folder(home, loaded.settings).is_dir():
        raise NotInitialized(f"{home} holds no archive: run pacs --home {home} init")
    others = tuple(installed() if extensions is None else extensions)
    require_sound(others)
    CALLS.set_up(loaded.settings.tls, home)
    with ExitStack() as stack:
        parts = _parts(home, loaded.settings, stack, receiver)
        asking = AskingGate(gate or _gate(home, parts, failures))
        archive = replace(_archive(home, parts, asking), installed=others)
        stack.callback(archive.shipping.close)
        for extension in (*OURS, *others):
            settings = loaded.extensions.get(extension.name) or extension.settings()
            attached = extension.attach(archive, settings)
            stack.callback(attached.close)
            archive = _with(archive, extension.name, attached)
        yield archive


def _with(archive: Archive, name: str, attached: Attached) -> Archive:
    """The archive with one more extension; its rules are asked from now on."""
    for kind in attached.jobs:
        if any(kind in other.jobs for other in archive.extensions.values()):
            raise SettingsInvalid(f"extension {name}: jobs of kind {kind} have a handler already")
    archive.gate.add(attached.admission)
    for rule in attached.on_arrival:
        archive.ingest.add_rule(rule)
    for repeat in attached.on_repeat:
        archive.ingest.add_repeat_rule(repeat)
    return replace(archive, extensions={**archive.extensions, name: attached})


def _parts(home: Path, settings: Settings, stack: ExitStack, receiver: str) -> "_Parts":
    database = Database(settings.database, home)
    stack.callback(database.close)
    store = DiskStore(store_folder(home, settings), settings.storage, receiver=receiver)
    audit = FileAuditTrail(
        home,
        settings.audit,
        # Of a home whose workers use another's store nothing was ever to be on record.
        holds_instances=lambda: has_served(home) and any(True for _ in store.places()),
    )
    stack.callback(audit.close)
    # A starting server empties "work"; workers may run without it.
    scratch = home / ("worker" if is_worker(receiver) else "work") / receiver
    transcoder = SandboxedTranscoder(settings.retrieve, scratch)
    stack.callback(transcoder.close)
    reducer = Reducer(settings, scratch)
    stack.callback(reducer.close)
    wake = _wake(settings, stack)
    records = DatabaseRecords(database, settings.retrieve.versions, settings.outbox, wake=wake)
    return _Parts(
        scratch=scratch,
        settings=settings,
        database=database,
        store=store,
        journal=Journal(store_folder(home, settings) / "journal"),
        audit=audit,
        transcoder=transcoder,
        reducer=reducer,
        snapshots=DatabaseSnapshots(database),
        records=records,
        job_table=JobTable(database, records),
        wake=wake,
        index=DatabaseRetrieveIndex(database),
    )


def _gate(home: Path, parts: "_Parts", failures: Failures | None) -> Gate:
    return contract_gate(
        home,
        parts.settings,
        snapshots=parts.snapshots,
        audit=parts.audit,
        failures=failures,
        enrolments=enrolments(parts.database, parts.audit, parts.settings.subscriber),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What the services are made of."""

    scratch: Path
    settings: Settings
    database: Database
    store: DiskStore
    journal: Journal
    audit: FileAuditTrail
    transcoder: SandboxedTranscoder
    reducer: Reducer
    snapshots: DatabaseSnapshots
    records: DatabaseRecords
    job_table: JobTable
    wake: Callable[[str], None]
    index: DatabaseRetrieveIndex


def _wake(settings: Settings, stack: ExitStack) -> Callable[[str], None]:
    """Tell workers of new jobs where there is a broker; without one they look by themselves."""
    if not settings.jobs.broker:
        return lambda _: None
    bell = Bell(settings.jobs.broker)
    stack.callback(bell.close)
    return bell.ring


def _archive(home: Path, parts: _Parts, gate: AskingGate) -> Archive:
    settings = parts.settings
    ingest = _ingest(parts)
    shipping = _shipping(parts)
    reindex = _reindex(parts, ingest)
    return Archive(
        home=home,
        scratch=parts.scratch,
        settings=settings,
        gate=gate,
        audit=parts.audit,
        database=parts.database,
        store=parts.store,
        transcoder=parts.transcoder,
        snapshots=parts.snapshots,
        ingest=ingest,
        find=_find(parts),
        shipping=shipping,
        retrieve=_retrieve(parts, shipping, gate),
        peers=Peers(PeerTable(parts.database), ContractTable(parts.database), parts.audit),
        listing=Listing(_find(parts)),
        statistics=Statistics(DatabaseCounts(parts.database), parts.store),
        deletions=_deletions(parts, reindex),
        conflicts=Conflicts(
            rows=ConflictTable(parts.database),
            journal=parts.journal,
            decisions=_decisions(parts),
            audit=parts.audit,
        ),
        verification=_verification(parts),
        reindex=reindex,
        jobs=Jobs(JobList(parts.database, parts.wake), parts.audit),
        polls=polls(parts.database, parts.records, parts.audit),
        workitems=workitems(parts.database, parts.records, parts.snapshots, parts.audit, settings),
        usage=UsageAccount(UsageTable(parts.database)),
        job_table=parts.job_table,
        wake=parts.wake,
        records=parts.records,
        outbox=Outbox(OutboxTable(parts.database, settings.outbox), parts.records, parts.audit),
        extensions={},
    )


def _decisions(parts: _Parts) -> Decisions:
    return Decisions(parts.database, parts.settings.retrieve.versions)


def _whole(parts: _Parts) -> WholeIndex:
    return WholeIndex(parts.database, parts.settings.retrieve.versions)


def _verification(parts: _Parts) -> Verification:
    return Verification(
        index=_whole(parts),
        store=parts.store,
        restorer=parts.transcoder.restorer,
        audit=parts.audit,
    )


def _find(parts: _Parts) -> Find:
    return Find(
        index=DatabaseFindIndex(parts.database),
        read_header=header_reader(parts.store, parts.transcoder.restorer, parts.settings.parsing),
        settings=parts.settings.query,
        ae_title=AETitle(parts.settings.dicom.ae_title),
    )


def _shipping(parts: _Parts) -> Shipping:
    settings = parts.settings
    return Shipping(
        index=parts.index,
        store=parts.store,
        sender=StoreSCU(ae_title=settings.dicom.ae_title, bounds=settings.association),
        transcoder=parts.transcoder,
        settings=settings.retrieve,
        processor=parts.reducer,
    )


def _retrieve(parts: _Parts, shipping: Shipping, gate: Gate) -> Retrieve:
    return Retrieve(
        index=parts.index,
        records=parts.records,
        shipping=shipping,
        snapshots=parts.snapshots,
        settings=parts.settings.retrieve,
        audit=parts.audit,
        gate=gate,
    )


def _ingest(parts: _Parts) -> Ingest:
    return Ingest(
        records=parts.records,
        index=parts.index,
        store=parts.store,
        transcoder=parts.transcoder,
        snapshots=parts.snapshots,
        parsing=parts.settings.parsing,
    )


def _reindex(parts: _Parts, ingest: Ingest) -> Reindex:
    return Reindex(
        index=_whole(parts),
        journal=parts.journal,
        store=parts.store,
        parsing=parts.settings.parsing,
        facts=ingest.facts,
        audit=parts.audit,
        head=parts.transcoder.restorer.head,
    )


def _deletions(parts: _Parts, reindex: Reindex) -> Deletions:
    return Deletions(
        rows=DeletionTable(parts.database, parts.settings.retrieve.versions),
        journal=parts.journal,
        decisions=_decisions(parts),
        store=parts.store,
        read=reindex.read,
        audit=parts.audit,
        delay_s=parts.settings.storage.deletion_delay_s,
    )
