"""Events reach their peer: idle or busy, on its association or on ours, at least once and nobody else."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt

from pacs.app.archive import Archive, open_archive
from pacs.app.listening import listening
from pacs.core.caller import Caller, Candidate, Right, SubscriberName, Visibility
from pacs.core.events import PostedEvent
from tests.association_fakes import until
from tests.keeping import ADMIN, loaded_for, opened
from tests.reporting import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    PATIENCE_S,
    QUICK,
    SLOW_FIND,
    Reporter,
    Told,
    calling,
    event_for,
    listening_peer,
    turned,
)


class NamedGate:
    """Admits everybody as the subscriber they call: the AE title alone identifies nobody."""

    def admit(self, candidate: Candidate) -> Caller:
        return Caller(
            subscriber=SubscriberName(candidate.called_ae_title.lower()),
            rights=frozenset(Right),
            visibility=Visibility(everything=True),
            ae_title=candidate.calling_ae_title,
        )

    def allow(self, caller: Caller, right: Right, purpose: str = "") -> Caller:
        """Everything is allowed."""
        return caller

    def stands(self, caller: Caller) -> bool:
        return True


@contextmanager
def served(
    home: Path, url: str = "", reporter: Reporter | None = None, **overrides: str
) -> Iterator[tuple[Archive, int]]:
    made = (reporter or Reporter()).extension()
    settings = {**QUICK, **overrides}
    with (
        opened(home, url, gate=NamedGate(), extensions=(made,), **settings) as archive,
        listening(archive) as port,
    ):
        yield archive, port
    assert not [one for one in threading.enumerate() if one.name.startswith("pacs-postman")]


def listed(archive: Archive) -> list[PostedEvent]:
    return list(archive.outbox.list(ADMIN))


def arrived(archive: Archive, told: Told, *numbers: int) -> bool:
    """Wait until exactly these have been told and nothing is left."""
    return until(lambda: told.numbers == list(numbers) and listed(archive) == [], PATIENCE_S)


def test_an_idle_association_is_told_by_whatever_process_posts(url: str, tmp_path: Path) -> None:
    told = Told()
    with served(tmp_path, url) as (archive, port), calling(port, told, called="local"):
        archive.outbox.post(ADMIN, event_for("MODALITY", 1))
        assert arrived(archive, told, 1)
        with open_archive(tmp_path, loaded_for(tmp_path, url), extensions=()) as other:
            other.outbox.post(ADMIN, event_for("MODALITY", 2))
            other.outbox.post(ADMIN, event_for("MODALITY", 3))
        assert arrived(archive, told, 1, 2, 3)


def test_whichever_process_holds_the_association_brings_it(url: str, tmp_path: Path) -> None:
    """Two listeners on one database: posted in one, and by a peer's address callable from both."""
    told, at_home = Told(), Told()
    loaded, made = loaded_for(tmp_path, url, **QUICK), Reporter().extension()
    with (
        served(tmp_path, url) as (archive, _),
        open_archive(tmp_path, loaded, gate=NamedGate(), extensions=(made,)) as other,
        listening(other) as port,
        listening_peer(at_home) as peer_port,
    ):
        with calling(port, told, called="local"):
            for number in range(5):
                archive.outbox.post(ADMIN, event_for("MODALITY", number))
            assert arrived(archive, told, 0, 1, 2, 3, 4)
        archive.peers.add(ADMIN, "MODALITY", "127.0.0.1", peer_port)
        for number in range(5, 10):
            archive.outbox.post(ADMIN, event_for("MODALITY", number))
        assert arrived(archive, at_home, 5, 6, 7, 8, 9), "called by one of them, each once"


def test_what_waits_is_told_when_the_peer_comes(tmp_path: Path) -> None:
    told = Told()
    with served(tmp_path) as (archive, port):
        for number in range(5):
            archive.outbox.post(ADMIN, event_for("MODALITY", number))
        with calling(port, told, called="local"):
            assert arrived(archive, told, 0, 1, 2, 3, 4)


def test_a_peer_is_told_between_the_answers_to_its_own_question(tmp_path: Path) -> None:
    """The handler answers until the event has come: it cannot have come afterwards."""
    reporter, told = Reporter(), Told()
    with (
        served(tmp_path, reporter=reporter) as (archive, port),
        calling(port, told, called="local") as association,
    ):
        asked = Dataset()
        asked.PatientID = "*"
        responses = association.send_c_find(asked, SLOW_FIND)
        first, _ = next(responses)
        assert first.Status == 0xFF00
        archive.outbox.post(ADMIN, event_for("MODALITY", 7))
        statuses = []
        for status, _ in responses:
            statuses.append(status.Status)
            if told.came.is_set():
                reporter.let_find_end.set()
        assert statuses[-1] == 0x0000, "the event had come before the last response"
        assert reporter.pending > 1
        assert arrived(archive, told, 7)


def test_an_action_is_answered_before_its_event_comes(tmp_path: Path) -> None:
    order: list[str] = []
    told = Told()

    def on_event(event: object) -> tuple[int, None]:
        order.append("event")
        return told(event)

    with (
        served(tmp_path) as (archive, port),
        calling(port, on_event, called="local") as association,
    ):
        asked = Dataset()
        asked.TransactionUID = "1.2.5"
        association.bind(
            evt.EVT_DIMSE_RECV,
            lambda event: order.append(type(event.message).__name__),
        )
        status, _ = association.send_n_action(asked, 1, COMMITMENT, COMMITMENT_INSTANCE)
        assert status.Status == 0x0000
        assert arrived(archive, told, 5)
    assert order.index("N_ACTION_RSP") < order.index("event")


def test_anothers_subscriber_who_claims_the_ae_title_is_not_told(tmp_path: Path) -> None:
    told, thief = Told(), Told()
    with served(tmp_path) as (archive, port), calling(port, thief, called="thief"):
        archive.outbox.post(ADMIN, event_for("MODALITY", 1))
        archive.outbox.post(ADMIN, event_for("MODALITY", 2, registrant="thief"))
        assert until(lambda: thief.numbers == [2], PATIENCE_S)
        with calling(port, told, called="local"):
            assert arrived(archive, told, 1)
    assert thief.numbers == [2]


def test_a_peer_that_took_our_role_is_not_told_on_that_association(tmp_path: Path) -> None:
    told, refuses = Told(), Told()
    with (
        served(tmp_path) as (archive, port),
        calling(port, refuses, called="local", contexts=(COMMITMENT,), roles=[turned()]) as one,
    ):
        assert one.accepted_contexts[0].as_scp
        archive.outbox.post(ADMIN, event_for("MODALITY", 1))
        with calling(port, told, called="local"):
            assert arrived(archive, told, 1)
    assert refuses.numbers == []


def test_a_peer_without_an_association_is_called_after_the_grace(url: str, tmp_path: Path) -> None:
    told = Told()
    with served(tmp_path, url) as (archive, _), listening_peer(told) as port:
        archive.peers.add(ADMIN, "MODALITY", "127.0.0.1", port)
        for number in (1, 2, 3):
            archive.outbox.post(ADMIN, event_for("MODALITY", number))
        assert arrived(archive, told, 1, 2, 3)
    assert told.calling == ["PACS"] * 3


def test_a_refusal_is_tried_again_and_a_warning_delivers(tmp_path: Path) -> None:
    told = Told(0x0110, 0x0213, 0xB000)
    with served(tmp_path) as (archive, port), calling(port, told, called="local"):
        archive.outbox.post(ADMIN, event_for("MODALITY", 1))
        archive.outbox.post(ADMIN, event_for("MODALITY", 2))
        assert arrived(archive, told, 1, 1, 1, 2), "in order, and none before the one it follows"


def test_the_last_attempt_leaves_it_dead_until_somebody_says_so(tmp_path: Path) -> None:
    told = Told(0x0110, 0x0110)
    with (
        served(tmp_path, outbox__max_attempts="2") as (archive, port),
        calling(port, told, called="local"),
    ):
        number = archive.outbox.post(ADMIN, event_for("MODALITY", 1))
        assert until(lambda: [one.state for one in listed(archive)] == ["dead"], PATIENCE_S)
        (dead,) = listed(archive)
        assert (dead.id, dead.attempts, dead.trouble) == (number, 2, "status 0110")
        archive.outbox.retry(ADMIN, number)
        assert arrived(archive, told, 1, 1, 1)


def test_an_association_lost_before_the_answer_costs_an_attempt_not_the_event(
    tmp_path: Path,
) -> None:
    told = Told()

    def abort(event: evt.Event) -> tuple[int, None]:
        event.assoc.abort()
        return 0x0000, None

    with served(tmp_path) as (archive, port):
        with calling(port, abort, called="local"):
            archive.outbox.post(ADMIN, event_for("MODALITY", 1))
            assert until(lambda: [one.trouble for one in listed(archive)] == ["lost"], PATIENCE_S)
        with calling(port, told, called="local"):
            assert arrived(archive, told, 1)


def test_a_peer_that_keeps_its_role_is_not_told_against_it(tmp_path: Path) -> None:
    told = Told()
    with (
        served(tmp_path) as (archive, own_port),
        listening_peer(told, lets_us_report=False) as port,
    ):
        archive.peers.add(ADMIN, "MODALITY", "127.0.0.1", port)
        archive.outbox.post(ADMIN, event_for("MODALITY", 1))
        assert until(lambda: "role" in listed(archive)[0].trouble, PATIENCE_S)
        assert told.numbers == []
        with calling(own_port, told, called="local"):
            assert arrived(archive, told, 1)


def test_peers_that_are_down_or_silent_cost_others_nothing(tmp_path: Path) -> None:
    told = Told()
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with (
            served(tmp_path, association__artim_timeout_s="3") as (archive, _),
            listening_peer(told) as port,
        ):
            archive.peers.add(ADMIN, "SILENT", "127.0.0.1", silent.getsockname()[1])
            archive.peers.add(ADMIN, "DOWN", "127.0.0.1", closed.getsockname()[1])
            archive.peers.add(ADMIN, "MODALITY", "127.0.0.1", port)
            for one in ("SILENT", "DOWN", "NOWHERE", "MODALITY"):
                archive.outbox.post(ADMIN, event_for(one, 1))
            assert until(lambda: told.numbers == [1], PATIENCE_S)
            failures = "SELECT failures FROM outbox_call WHERE ae_title = 'DOWN'"
            assert until(
                lambda: any(row[0] > 1 for row in archive.database.execute(failures)), PATIENCE_S
            ), "it is called again"
            waiting = {"SILENT": 0, "DOWN": 0, "NOWHERE": 0}
            assert until(
                lambda: {one.ae_title: one.attempts for one in listed(archive)} == waiting,
                PATIENCE_S,
            ), "a call is no attempt"


def test_what_is_not_done_at_the_end_waits_for_the_next_start(tmp_path: Path) -> None:
    told = Told()
    with served(tmp_path) as (archive, _):
        archive.outbox.post(ADMIN, event_for("MODALITY", 1))
    with served(tmp_path) as (archive, port), calling(port, told, called="local"):
        assert arrived(archive, told, 1)


@pytest.mark.parametrize("status", [0x0000, 0x0110])
def test_every_attempt_is_on_record(tmp_path: Path, status: int) -> None:
    told = Told(status)
    with served(tmp_path) as (archive, port), calling(port, told, called="local"):
        archive.outbox.post(ADMIN, event_for("MODALITY", 1))
        assert until(lambda: listed(archive) == [], PATIENCE_S)
    trail = "".join(one.read_text() for one in (tmp_path / "audit").iterdir())
    assert '"event-report"' in trail
    assert f'"{status:04X}"' in trail
    assert "1.2.1" not in trail.replace("1.2.1.", ""), "nothing of the Event Information"
