"""What the gate costs a C-STORE: one archive in this process, asked by contract and by loopback's trust in turn.

The same server takes studies that are alike, each under one of the two gates, and the
processor time of this process is shared out among the instances; the sender is another
process. Beside them, what the gate alone takes for the one question it is asked per instance.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import clients
from bench.peers import OURS, Server
from bench.results import Results, Unit
from bench.studies import image_studies
from config.load import Loaded
from config.settings import Dicom, Settings, Storage
from pacs.app.archive import open_archive
from pacs.app.gate import contract_gate
from pacs.app.home import initialize
from pacs.app.listening import listening
from pacs.core.caller import Caller, Candidate, Right, SubscriberName
from pacs.core.contract import Agreement, Contract, ContractState
from pacs.core.identifiers import AETitle, StudyInstanceUID
from pacs.core.ports import Gate
from pacs.core.records import Peer, Snapshot

TRUST, CONTRACT, ASKED = "gate-loopback", "gate-contract", "gate-asked"
DEVICES, AGREEMENTS, QUESTIONS = 50, 5, 20_000
SUBSCRIBER = SubscriberName("bench")


class Fixed:
    """``pacs.core.ports.Snapshots`` of one state."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def current(self) -> Snapshot:
        """The state."""
        return self._snapshot

    def newest(self) -> Snapshot:
        """The state."""
        return self._snapshot


class Silent:
    """``pacs.core.ports.AuditTrail`` of nothing."""

    def record(self, event: str, caller: Caller | None, **details: object) -> None:
        """Let it pass."""


class Switched:
    """``pacs.core.ports.Gate``: the one of several that was chosen last."""

    def __init__(self, gate: Gate) -> None:
        self.chosen = gate

    def admit(self, candidate: Candidate) -> Caller:
        """As it does."""
        return self.chosen.admit(candidate)

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        """As it does."""
        return self.chosen.allow(caller, right, purpose)

    def stands(self, caller: Caller) -> bool:
        """As it does."""
        return self.chosen.stands(caller)


def declare(results: Results) -> None:
    """Name the rows of the gate."""
    contract = f"contract of {DEVICES} devices and {AGREEMENTS} agreements"
    results.declare(TRUST, "Processor per CT stored, loopback trusted", Unit.MILLISECONDS)
    results.declare(CONTRACT, f"… under a {contract}", Unit.MILLISECONDS)
    results.declare(ASKED, "… of that the gate's own question", Unit.MILLISECONDS)


def run(folder: Path, results: Results, *, instances: int, rounds: int) -> None:
    """Store one study after the other, under either gate in turn; the first of each warms up."""
    studies = iter(
        image_studies(
            folder / "source", modality="CT", studies=2 * (rounds + 1), instances=instances
        )
    )
    gates = {TRUST: _gate(folder, Snapshot(revision=1, peers={})), CONTRACT: _gate(folder, busy())}
    switched = Switched(gates[TRUST])
    with serving(folder / "ours", switched) as server:
        for number in range(rounds + 1):
            results.begin(number)
            for row in (TRUST, CONTRACT) if number % 2 else (CONTRACT, TRUST):
                switched.chosen = gates[row]
                try:
                    before_s = _processor_s()
                    clients.store_s(server, [next(studies)], stock=False)
                    results.add(row, OURS, (_processor_s() - before_s) / instances * 1_000)
                except (clients.Wrong, OSError) as error:
                    results.failed(row, OURS, str(error))
            results.add(ASKED, OURS, asked_ms(gates[CONTRACT]))


def asked_ms(gate: Gate) -> float:
    """Processor milliseconds for one question of a caller whose contract has not changed."""
    caller = gate.admit(
        Candidate(
            calling_ae_title=AETitle("BENCH"),
            called_ae_title=AETitle("PACS"),
            address="127.0.0.1",
            port=1,
        )
    )
    before_s = time.process_time()
    for _ in range(QUESTIONS):
        gate.allow(caller, Right.REGISTER)
    return (time.process_time() - before_s) / QUESTIONS * 1_000


def busy() -> Snapshot:
    """A subscriber with many devices and some agreements, among others."""
    names = [AETitle("BENCH"), *(AETitle(f"DEVICE{number}") for number in range(1, DEVICES))]
    contract = Contract(
        subscriber=SUBSCRIBER,
        state=ContractState.ACTIVE,
        rights=frozenset({Right.REGISTER, Right.QUERY, Right.RECEIVE}),
        agreements=tuple(
            Agreement(
                owner=SubscriberName(f"other{number}"),
                study_instance_uid=StudyInstanceUID(f"1.2.{number}") if number % 2 else None,
            )
            for number in range(AGREEMENTS)
        ),
    )
    return Snapshot(
        revision=1,
        peers={
            one: Peer(
                ae_title=one,
                host="127.0.0.1",
                port=104,
                subscriber=SUBSCRIBER,
                networks=("127.0.0.0/8", "10.0.0.0/8"),
            )
            for one in names
        },
        contracts={SUBSCRIBER: contract},
    )


@contextmanager
def serving(home: Path, gate: Gate) -> Iterator[Server]:
    """Serve a fresh home from this process."""
    loaded = Loaded(settings=Settings(dicom=Dicom(port=0), storage=Storage(reserve_bytes=0)))
    initialize(home, loaded)
    with open_archive(home, loaded, gate=gate) as archive, listening(archive) as port:
        yield Server(port=port, ae_title="PACS", pid=0, folder=home)


def _gate(folder: Path, snapshot: Snapshot) -> Gate:
    return contract_gate(folder, Settings(), snapshots=Fixed(snapshot), audit=Silent())


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
