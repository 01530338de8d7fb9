"""What tests of forwarding share: a receiver that answers as told, routes that are given, a worker in this process."""

import os
import re
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt

from pacs.app import forward
from pacs.app.archive import Archive
from pacs.app.worker import kinds_of, schedules_of
from pacs.core.attributes import Level
from pacs.core.errors import CoercionFailed, CoercionInterrupted
from pacs.core.forwarding import ForwardWork
from pacs.core.identifiers import AETitle, Registrant, StudyInstanceUID, TransferSyntaxUID
from pacs.core.records import Job, Peer
from pacs.core.routing import Coercion, Route
from pacs.core.sent import SentState
from pacs.core.work import JobRow, JobState
from pacs.jobs.keeper import Keeper
from pacs.jobs.kinds import JobKind
from pacs.jobs.schedules import Scheduler
from pacs.jobs.worker import Worker
from storage.database.peer import PeerTable
from tests.archive import Tool, data_set_of, free_port
from tests.keeping import ADMIN, NO_CHORES, data_set, keep

BOUND_S = 60.0
_REQUEST = re.compile(r"INCOMING DIMSE MESSAGE.*?Affected SOP Instance UID *: (\S+)", re.DOTALL)
QUICK = {
    **NO_CHORES,
    "forward__retry_s": "0.05",
    "forward__max_retry_s": "0.05",
    "forward__max_attempts": "3",
    "jobs__hold_first_s": "0.2",
    "jobs__hold_max_s": "0.2",
}


def until(holds: Callable[[], bool], bound_s: float = BOUND_S) -> None:
    """Wait until it holds; fails when it does not in time."""
    limit = time.monotonic() + bound_s
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def known(archive: Archive, ae_title: str, port: int, *, associations: int = 1) -> None:
    """Name a peer on loopback."""
    PeerTable(archive.database).put(
        Peer(ae_title=AETitle(ae_title), host="127.0.0.1", port=port, associations=associations)
    )


def study_of(archive: Archive, study: str, instances: int, *, first: int = 1) -> list[str]:
    """Keep a study of so many instances, in two series in turn; gives their UIDs as they arrived."""
    uids = [f"{study}.{number % 2}.{number}" for number in range(first, first + instances)]
    for uid in uids:
        keep(archive, data_set(study, uid.rpartition(".")[0], uid))
    return uids


def work(study: str, to: str, **more: Any) -> ForwardWork:
    """Ask for a study to be sent."""
    return ForwardWork(
        route=more.pop("route", ""),
        destination=AETitle(to),
        registrant=Registrant("local"),
        study_instance_uid=StudyInstanceUID(study),
        **more,
    )


def ask(archive: Archive, *works: ForwardWork) -> None:
    """Enqueue."""
    with archive.records.transaction() as unit:
        for one in works:
            unit.enqueue(one.job(cause="test"))


def jobs(archive: Archive, kind: str = "forward.send") -> list[JobRow]:
    """List jobs of a kind, oldest first."""
    return list(reversed(archive.jobs.list(ADMIN, kind=kind)))


def states(archive: Archive) -> list[str]:
    """How the forwarding jobs stand."""
    return [one.state.value for one in jobs(archive)]


def record(archive: Archive, to: str) -> dict[str, tuple[SentState, int, int]]:
    """What is on record: SOP Instance UID → state, attempts, doubts."""
    rows = archive.database.execute(
        "SELECT i.sop_instance_uid, f.state, f.attempts, f.doubts FROM forward_sent f "
        "JOIN instance i ON i.object_id = f.object_id WHERE f.ae_title = ?",
        (to,),
    )
    return {uid: (SentState(state), attempts, doubts) for uid, state, attempts, doubts in rows}


def used(archive: Archive, kind: str, to: str) -> int:
    """Add up the usage: how many were delivered, or with ``deliver-bytes`` what travelled."""
    column = {"deliver": "amount", "deliver-bytes": "bytes"}[kind]
    rows = archive.database.execute(
        f"SELECT {column} FROM usage_fact WHERE kind = 'deliver' AND receiver = ?", (to,)
    )
    return sum(row[0] for row in rows)


# --- a receiver ------------------------------------------------------------------------


@dataclass(kw_only=True)
class Scripted:
    """A pynetdicom SCP: ``answers`` gives a status per SOP Instance UID, ``None`` aborts."""

    port: int = 0
    answers: dict[str, int | None] = field(default_factory=dict)
    once: dict[str, int | None] = field(default_factory=dict)
    """Goes before ``answers``, the first time."""
    default: int = 0
    pause_s: float = 0.0
    got: list[str] = field(default_factory=list)
    """Every C-STORE-RQ in its order, whatever it was answered."""
    associations: int = 0
    data_sets: dict[str, bytes] = field(default_factory=dict)

    def store(self, event: Any) -> int:
        """Answer one C-STORE."""
        uid = str(event.request.AffectedSOPInstanceUID)
        self.got.append(uid)
        self.data_sets[uid] = event.request.DataSet.getvalue()
        time.sleep(self.pause_s)
        status = self.once.pop(uid) if uid in self.once else self.answers.get(uid, self.default)
        if status is None:
            event.assoc.abort()
            return 0xC001
        return status

    def accepted(self, _: Any) -> None:
        """Count the association."""
        self.associations += 1


@contextmanager
def receiver(contexts: Sequence[Any] = AllStoragePresentationContexts) -> Iterator[Scripted]:
    """Run a scripted receiver."""
    script = Scripted()
    entity = AE(ae_title="SCRIPTED")
    entity.supported_contexts = list(contexts)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, script.store), (evt.EVT_ACCEPTED, script.accepted)],
    )
    try:
        script.port = server.socket.getsockname()[1]
        yield script
    finally:
        server.shutdown()


@dataclass(frozen=True, kw_only=True)
class Writer:
    """A storescp that writes what it receives as it comes, and says so."""

    port: int
    folder: Path
    log: Path

    def received(self) -> dict[str, int]:
        """How often each SOP Instance was sent."""
        return Counter(self.in_order())

    def in_order(self) -> list[str]:
        """Every C-STORE-RQ in its order."""
        return _REQUEST.findall(self.log.read_text(errors="replace"))

    def files(self) -> dict[str, bytes]:
        """SOP Instance UID → the Data Set as it was written."""
        return {one.name.partition(".")[2]: data_set_of(one) for one in self.folder.iterdir()}


@contextmanager
def writer(tool: Tool, folder: Path, port: int = 0) -> Iterator[Writer]:
    """Run DCMTK's storescp, bit-preserving."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = port or free_port(), folder.with_suffix(".log")
    command = [tool("storescp"), "-d", "+xa", "+B", "-od", str(folder), str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "TCP_NODELAY": "1"},
        )
    made = Writer(port=port, folder=folder, log=log)
    try:
        until(lambda: _answers(port))
        yield made
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- ports -------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Given:
    """Routes as they are given; ``unwanted`` and ``theirs`` name SOP Instance UIDs. Also a coercer that upper-cases."""

    routes: dict[str, Route] = field(default_factory=dict)
    unwanted: frozenset[str] = frozenset()
    theirs: frozenset[str] = frozenset()
    incapable: bool = False
    full: int = 0
    """So many changed copies find no room."""
    archive: Archive | None = None

    def route(self, name: str) -> Route | None:
        """The route of that name."""
        return self.routes.get(name)

    def selects(
        self,
        route: Route,
        registrant: Registrant,
        rows: Sequence[int],
        *,
        undecided: set[int] | None = None,
    ) -> frozenset[int]:
        """All but the unwanted."""
        return frozenset(rows) - self._named(self.unwanted)

    def came_from(self, ae_title: AETitle, rows: Sequence[int]) -> frozenset[int]:
        """Theirs."""
        return self._named(self.theirs)

    def _named(self, uids: frozenset[str]) -> frozenset[int]:
        assert self.archive is not None
        found = self.archive.database.execute("SELECT id, sop_instance_uid FROM instance")
        return frozenset(int(row[0]) for row in found if row[1] in uids)

    @contextmanager
    def coerced(
        self, path: str, offset: int, syntax: TransferSyntaxUID, coercions: Sequence[Coercion]
    ) -> Iterator[str]:
        """Turn one name into another of its length."""
        if self.incapable:
            raise CoercionFailed("not to be changed")
        if self.full:
            self.full -= 1
            raise CoercionInterrupted("no room")
        changed = Path(path).read_bytes()[offset:].replace(b"Doe^Jane", b"Roe^Jean")
        made = Path(f"{path}.changed")
        made.write_bytes(changed)
        try:
            yield str(made)
        finally:
            made.unlink()


def routed(name: str, **more: Any) -> Given:
    """Give one route."""
    made = Route(name=name, level=Level.STUDY, destinations=(AETitle("DEST"),), **more)
    return Given(routes={name: made})


# --- a worker ------------------------------------------------------------------------------


@contextmanager
def hands(
    archive: Archive, given: Given | None = None, more: Mapping[str, JobKind] | None = None
) -> Iterator[Worker]:
    """Give a worker of this process with its keeper."""
    given = given or Given()
    given.archive = archive
    service = forward.forwarding(archive, given, given)
    kinds = {**kinds_of(archive), **forward.attached(archive, service).jobs, **(more or {})}
    keeper = Keeper(
        archive.job_table,
        Scheduler(archive.job_table, schedules_of(archive), "UTC"),
        archive.settings.jobs,
        owner=f"test-{threading.get_ident()}",
        give_up=lambda: None,
    )
    keeper.start()
    try:
        yield Worker(archive.job_table, kinds, archive.settings.jobs, keeper=keeper)
    finally:
        keeper.stop()


def worked(archive: Archive, given: Given | None = None, **more: Any) -> None:
    """Work until every forwarding job has ended."""
    with hands(archive, given, **more) as worker:
        until(lambda: worker.work(threading.Event()) or ended(archive))


def ended(archive: Archive) -> bool:
    """Tell whether no job waits or runs."""
    over = {JobState.DONE, JobState.FAILED, JobState.CANCELLED}
    return all(one.state in over for one in archive.jobs.list(ADMIN))


def job_asked(kind: str, queue: str) -> Job:
    """Some other job."""
    return Job(kind=kind, payload="{}", queue=queue)
